# Passphrases that ceph-csi keeps for one tenant, with the tenant's name in
#   vaultPassphrasePath: ceph-csi/TENANT
# and in the profile
#   "mount": "secret", "prefix": "ceph-csi/TENANT/", "layout": "ceph-csi"
path "secret/data/ceph-csi/{{identity.entity.metadata.tenant}}/+" {
  capabilities = ["read"]
}
