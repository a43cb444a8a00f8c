# Open what was wrapped with the tenant's transit key, which has the tenant's
# name: "engine": "transit", "mount": "transit", "key": "TENANT".
path "transit/decrypt/{{identity.entity.metadata.tenant}}" {
  capabilities = ["update"]
}
