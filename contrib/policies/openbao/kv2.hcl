# One tenant's records in the KV version 2 mount "secret", below
# tenants/TENANT/: profiles with
#   "engine": "kv2", "mount": "secret", "prefix": "tenants/TENANT/"
# and the layout field, raw or rgw.  Read only: not even a list of names.
path "secret/data/tenants/{{identity.entity.metadata.tenant}}/*" {
  capabilities = ["read"]
}
