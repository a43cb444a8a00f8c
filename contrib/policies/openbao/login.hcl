# What every login needs for itself: to see whether its token is good, to
# renew it, and to end it.  OpenBao's policy "default" allows this and much
# more; the roles here go without that one.
path "auth/token/lookup-self" {
  capabilities = ["read"]
}
path "auth/token/renew-self" {
  capabilities = ["update"]
}
path "auth/token/revoke-self" {
  capabilities = ["update"]
}
