serve_sources += \
	include/behind.h \
	include/debts.h \
	include/doubt.h \
	include/places.h \
	include/recheck.h \
	include/session.h \
	plugin/serve/behind.c \
	plugin/serve/behind_inside.h \
	plugin/serve/blocks.c \
	plugin/serve/debts.c \
	plugin/serve/doubt.c \
	plugin/serve/losses.c \
	plugin/serve/merge.c \
	plugin/serve/parts.c \
	plugin/serve/places.c \
	plugin/serve/recheck.c \
	plugin/serve/refresh.c \
	plugin/serve/revocation.c \
	plugin/serve/room.c \
	plugin/serve/session.c \
	plugin/serve/session_count.c \
	plugin/serve/session_inside.h \
	plugin/serve/session_state.c \
	plugin/serve/session_volume.c \
	plugin/serve/store.c \
	plugin/serve/trial.c
