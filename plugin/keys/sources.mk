# SPDX-License-Identifier: BSD-3-Clause
keys_sources += \
	include/addresses.h \
	include/login.h \
	include/keys.h \
	plugin/keys/addresses.c \
	plugin/keys/barbican/barbican.c \
	plugin/keys/barbican/barbican.h \
	plugin/keys/barbican/keystone.c \
	plugin/keys/barbican/barbican_profile.c \
	plugin/keys/barbican/barbican_reply.c \
	plugin/keys/ceph_csi.c \
	plugin/keys/credential.c \
	plugin/keys/http.c \
	plugin/keys/key_server.c \
	plugin/keys/key_server.h \
	plugin/keys/key.c \
	plugin/keys/keyfile.c \
	plugin/keys/kmip/connection.c \
	plugin/keys/kmip/kmip.c \
	plugin/keys/kmip/kmip.h \
	plugin/keys/kmip/message.c \
	plugin/keys/kmip/kmip_profile.c \
	plugin/keys/kmip/kmip_refusal.c \
	plugin/keys/kmip/ttlv.c \
	plugin/keys/kmip/ttlv.h \
	plugin/keys/kms.c \
	plugin/keys/layout.c \
	plugin/keys/login.c \
	plugin/keys/meter.c \
	plugin/keys/openbao/answer.c \
	plugin/keys/openbao/ask.c \
	plugin/keys/openbao/environment.c \
	plugin/keys/openbao/kv.c \
	plugin/keys/openbao/bao_login.c \
	plugin/keys/openbao/bao_login.h \
	plugin/keys/openbao/method.c \
	plugin/keys/openbao/openbao.c \
	plugin/keys/openbao/openbao.h \
	plugin/keys/openbao/bao_profile.c \
	plugin/keys/openbao/bao_refusal.c \
	plugin/keys/openbao/transit.c \
	plugin/keys/openbao/wrapping.c \
	plugin/keys/pem.c \
	plugin/keys/profile.c \
	plugin/keys/provider.c \
	plugin/keys/record.c \
	plugin/keys/reference.c \
	plugin/keys/transport.c
# For libcurl's SSL_CTX (transport.c), and what pem.c tries.
librbdcrypt_la_LIBADD += -lssl
