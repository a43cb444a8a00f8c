# SPDX-License-Identifier: BSD-3-Clause
keys_sources += \
	include/keys.h \
	plugin/keys/hostfile.c \
	plugin/keys/http.c \
	plugin/keys/key.c \
	plugin/keys/keyfile.c \
	plugin/keys/kms.c \
	plugin/keys/layout.c \
	plugin/keys/openbao.c \
	plugin/keys/openbao.h \
	plugin/keys/openbao_answer.c \
	plugin/keys/openbao_environment.c \
	plugin/keys/openbao_profile.c \
	plugin/keys/openbao_settings.c \
	plugin/keys/profile.c \
	plugin/keys/provider.c
# For libcurl's SSL_CTX (http.c).
librbdcrypt_la_LIBADD += -lssl
