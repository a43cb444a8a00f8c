# To make volumes, not for servers: new wrapped keys, and the same
# keys under the transit key's latest version.  "update" and not "create",
# with which a mistyped name would make a new key.
path "transit/datakey/wrapped/{{identity.entity.metadata.tenant}}" {
  capabilities = ["update"]
}
path "transit/rewrap/{{identity.entity.metadata.tenant}}" {
  capabilities = ["update"]
}
