luks_sources += \
	include/luks_device.h \
	include/luks_editor.h \
	include/luks_mark.h \
	include/payload.h \
	include/xts.h \
	plugin/luks/luks.h \
	plugin/luks/copy.c \
	plugin/luks/device.c \
	plugin/luks/editor.c \
	plugin/luks/header.c \
	plugin/luks/kdf.c \
	plugin/luks/keyslots.c \
	plugin/luks/mark.c \
	plugin/luks/payload.c \
	plugin/luks/tokens.c \
	plugin/luks/unlock_limit.c \
	plugin/luks/unlock_turn.c \
	plugin/luks/xts.c
