luks_sources += \
	plugin/luks/header.c \
	plugin/luks/unlock_limit.c
