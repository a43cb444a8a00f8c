luks_sources += \
	plugin/luks/luks.h \
	plugin/luks/header.c \
	plugin/luks/kdf.c \
	plugin/luks/keyslots.c \
	plugin/luks/unlock_limit.c
