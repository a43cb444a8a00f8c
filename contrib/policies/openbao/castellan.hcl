# Keys that OpenStack made for one tenant.  Castellan puts all its keys side
# by side, so give each tenant a KV version 2 mount of its own:
#   [vault] kv_mountpoint = castellan/TENANT
# and in the profile
#   "mount": "castellan/TENANT", "layout": "castellan"
# A key's id has no slash: "+" is one part of a path, "*" would be all below.
path "castellan/{{identity.entity.metadata.tenant}}/data/+" {
  capabilities = ["read"]
}
