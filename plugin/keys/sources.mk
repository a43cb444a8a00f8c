keys_sources += \
	include/keys.h \
	plugin/keys/key.c
