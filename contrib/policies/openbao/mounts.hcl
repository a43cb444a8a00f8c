# For key=bao:MOUNT/PATH and vault:MOUNT/PATH only, which ask the server where
# the mount ends and of which version it is.  Profiles say so themselves.
path "sys/internal/ui/mounts/*" {
  capabilities = ["read"]
}
