# The same in the KV version 1 mount "kv1": "engine": "kv1".
path "kv1/tenants/{{identity.entity.metadata.tenant}}/*" {
  capabilities = ["read"]
}
