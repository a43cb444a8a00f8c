# SPDX-License-Identifier: BSD-3-Clause
# One program per module; TESTS is what "make check" runs.

TESTS = tests/unit/test-docs.sh tests/unit/test-arrows.py

if HAVE_CMOCKA
unit_tests = \
	tests/unit/test-addresses \
	tests/unit/test-answer \
	tests/unit/test-audit \
	tests/unit/test-barbican \
	tests/unit/test-behind \
	tests/unit/test-behind-threads \
	tests/unit/test-buffers \
	tests/unit/test-ceph-csi \
	tests/unit/test-credential \
	tests/unit/test-deadline \
	tests/unit/test-debts \
	tests/unit/test-encoding \
	tests/unit/test-engines \
	tests/unit/test-environment \
	tests/unit/test-example \
	tests/unit/test-export \
	tests/unit/test-export-file \
	tests/unit/test-export-keys \
	tests/unit/test-exposition \
	tests/unit/test-http \
	tests/unit/test-image-spec \
	tests/unit/test-json \
	tests/unit/test-keyfile \
	tests/unit/test-keyref \
	tests/unit/test-kms \
	tests/unit/test-kmip-connection \
	tests/unit/test-kmip-message \
	tests/unit/test-kv \
	tests/unit/test-layout \
	tests/unit/test-linger \
	tests/unit/test-login \
	tests/unit/test-login-life \
	tests/unit/test-login-server \
	tests/unit/test-luks-damage \
	tests/unit/test-luks-device \
	tests/unit/test-luks-editor \
	tests/unit/test-luks-fields \
	tests/unit/test-luks-header \
	tests/unit/test-luks-mark \
	tests/unit/test-metrics \
	tests/unit/test-notify \
	tests/unit/test-parameters \
	tests/unit/test-payload \
	tests/unit/test-peers \
	tests/unit/test-pem \
	tests/unit/test-profile \
	tests/unit/test-read-buffer \
	tests/unit/test-reason \
	tests/unit/test-record \
	tests/unit/test-recheck \
	tests/unit/test-registry \
	tests/unit/test-rehearsal \
	tests/unit/test-secret \
	tests/unit/test-sessions \
	tests/unit/test-supervision \
	tests/unit/test-tasks \
	tests/unit/test-text \
	tests/unit/test-trail \
	tests/unit/test-ttlv \
	tests/unit/test-tuning \
	tests/unit/test-unflushed \
	tests/unit/test-kdf \
	tests/unit/test-unlock-limit \
	tests/unit/test-unlock-turn \
	tests/unit/test-volume \
	tests/unit/test-wrong-key \
	tests/unit/test-xts
check_PROGRAMS = $(unit_tests)
TESTS += $(unit_tests)
AM_TESTS_ENVIRONMENT = srcdir='$(srcdir)'; export srcdir;
# cmocka 2 deprecates what cmocka 1.1 has no other word for.
unit_cflags = $(AM_CFLAGS) $(CMOCKA_CFLAGS) -Wno-deprecated-declarations
unit_ldadd = librbdcrypt.la $(CMOCKA_LIBS)

tests_unit_test_addresses_CFLAGS = $(unit_cflags)
tests_unit_test_addresses_LDADD = $(unit_ldadd)
tests_unit_test_audit_CFLAGS = $(unit_cflags)
tests_unit_test_audit_LDADD = $(unit_ldadd)
# The sources of write-behind are parts of this one, without some rules.
tests_unit_test_behind_CPPFLAGS = $(AM_CPPFLAGS) -I$(srcdir)
tests_unit_test_behind_CFLAGS = $(unit_cflags)
tests_unit_test_behind_threads_CFLAGS = $(unit_cflags)
tests_unit_test_behind_threads_LDADD = $(unit_ldadd)
tests_unit_test_buffers_CFLAGS = $(unit_cflags)
tests_unit_test_buffers_LDADD = $(unit_ldadd)
tests_unit_test_ceph_csi_CFLAGS = $(unit_cflags)
tests_unit_test_ceph_csi_LDADD = $(unit_ldadd)
tests_unit_test_barbican_SOURCES = \
	tests/unit/login-server.c \
	tests/unit/login-server.h \
	tests/unit/test-barbican.c
tests_unit_test_barbican_CFLAGS = $(unit_cflags)
tests_unit_test_barbican_LDADD = $(unit_ldadd)
tests_unit_test_credential_CFLAGS = $(unit_cflags)
tests_unit_test_credential_LDADD = $(unit_ldadd)
tests_unit_test_deadline_CFLAGS = $(unit_cflags)
tests_unit_test_deadline_LDADD = $(unit_ldadd)
tests_unit_test_debts_CFLAGS = $(unit_cflags)
tests_unit_test_debts_LDADD = $(unit_ldadd)
tests_unit_test_encoding_CFLAGS = $(unit_cflags)
tests_unit_test_encoding_LDADD = $(unit_ldadd)
tests_unit_test_image_spec_CFLAGS = $(unit_cflags)
tests_unit_test_image_spec_LDADD = $(unit_ldadd)
tests_unit_test_kv_SOURCES = \
	tests/unit/login-server.c \
	tests/unit/login-server.h \
	tests/unit/test-kv.c
tests_unit_test_kv_CFLAGS = $(unit_cflags)
tests_unit_test_kv_LDADD = $(unit_ldadd)
tests_unit_test_peers_CFLAGS = $(unit_cflags)
tests_unit_test_peers_LDADD = $(unit_ldadd)
tests_unit_test_pem_CFLAGS = $(unit_cflags)
tests_unit_test_pem_LDADD = $(unit_ldadd)
tests_unit_test_login_CFLAGS = $(unit_cflags)
tests_unit_test_login_LDADD = $(unit_ldadd)
tests_unit_test_login_life_SOURCES = \
	tests/unit/login-server.c \
	tests/unit/login-server.h \
	tests/unit/test-login-life.c
tests_unit_test_login_life_CFLAGS = $(unit_cflags)
tests_unit_test_login_life_LDADD = $(unit_ldadd)
tests_unit_test_login_server_SOURCES = \
	tests/unit/login-server.c \
	tests/unit/login-server.h \
	tests/unit/test-login-server.c
tests_unit_test_login_server_CFLAGS = $(unit_cflags)
tests_unit_test_login_server_LDADD = $(unit_ldadd)
luks_image = tests/unit/luks-image.c tests/unit/luks-image.h
tests_unit_test_luks_damage_SOURCES = \
	$(luks_image) \
	tests/unit/test-luks-damage.c
tests_unit_test_luks_damage_CFLAGS = $(unit_cflags)
tests_unit_test_luks_damage_LDADD = $(unit_ldadd)
tests_unit_test_luks_device_SOURCES = \
	$(luks_image) \
	tests/unit/test-luks-device.c
tests_unit_test_luks_device_CFLAGS = $(unit_cflags)
tests_unit_test_luks_device_LDADD = $(unit_ldadd)
tests_unit_test_luks_editor_SOURCES = \
	$(luks_image) \
	tests/unit/test-luks-editor.c
tests_unit_test_luks_editor_CFLAGS = $(unit_cflags)
tests_unit_test_luks_editor_LDADD = $(unit_ldadd)
tests_unit_test_luks_fields_SOURCES = \
	$(luks_image) \
	tests/unit/test-luks-fields.c
tests_unit_test_luks_fields_CFLAGS = $(unit_cflags)
tests_unit_test_luks_fields_LDADD = $(unit_ldadd)
tests_unit_test_luks_mark_SOURCES = \
	tests/unit/luks-image.c \
	tests/unit/luks-image.h \
	tests/unit/test-luks-mark.c
tests_unit_test_luks_mark_CFLAGS = $(unit_cflags)
tests_unit_test_luks_mark_LDADD = $(unit_ldadd)
tests_unit_test_luks_header_SOURCES = \
	$(luks_image) \
	tests/unit/test-luks-header.c
tests_unit_test_luks_header_CFLAGS = $(unit_cflags)
tests_unit_test_luks_header_LDADD = $(unit_ldadd)
tests_unit_test_notify_CFLAGS = $(unit_cflags)
tests_unit_test_notify_LDADD = $(unit_ldadd)
tests_unit_test_supervision_CFLAGS = $(unit_cflags)
tests_unit_test_supervision_LDADD = $(unit_ldadd)
tests_unit_test_supervision_LDFLAGS = $(AM_LDFLAGS) \
	-Wl,--wrap=pthread_create
tests_unit_test_parameters_CFLAGS = $(unit_cflags)
tests_unit_test_parameters_LDADD = $(unit_ldadd)
tests_unit_test_payload_CPPFLAGS = $(AM_CPPFLAGS) -I$(srcdir)
tests_unit_test_payload_CFLAGS = $(unit_cflags)
tests_unit_test_payload_LDADD = $(unit_ldadd)
tests_unit_test_recheck_CFLAGS = $(unit_cflags)
tests_unit_test_recheck_LDADD = $(unit_ldadd)
tests_unit_test_record_CFLAGS = $(unit_cflags)
tests_unit_test_record_LDADD = $(unit_ldadd)
tests_unit_test_read_buffer_CFLAGS = $(unit_cflags)
tests_unit_test_read_buffer_LDADD = $(unit_ldadd)
tests_unit_test_reason_CFLAGS = $(unit_cflags)
tests_unit_test_reason_LDADD = $(unit_ldadd)
tests_unit_test_secret_CFLAGS = $(unit_cflags)
tests_unit_test_secret_LDADD = $(unit_ldadd)
tests_unit_test_secret_LDFLAGS = $(AM_LDFLAGS) \
	-Wl,--wrap=free -Wl,--wrap=munmap
session_fakes = tests/unit/session-fakes.c tests/unit/session-fakes.h
tests_unit_test_linger_SOURCES = $(session_fakes) tests/unit/test-linger.c
tests_unit_test_linger_CFLAGS = $(unit_cflags)
tests_unit_test_linger_LDADD = $(unit_ldadd)
tests_unit_test_sessions_SOURCES = $(session_fakes) tests/unit/test-sessions.c
tests_unit_test_sessions_CFLAGS = $(unit_cflags)
tests_unit_test_sessions_LDADD = $(unit_ldadd)
tests_unit_test_sessions_LDFLAGS = $(AM_LDFLAGS) \
	-Wl,--wrap=pthread_create -Wl,--wrap=requests_begun
tests_unit_test_text_CFLAGS = $(unit_cflags)
tests_unit_test_text_LDADD = $(unit_ldadd)
tests_unit_test_trail_CFLAGS = $(unit_cflags)
tests_unit_test_trail_LDADD = $(unit_ldadd)
tests_unit_test_ttlv_CFLAGS = $(unit_cflags)
tests_unit_test_ttlv_LDADD = $(unit_ldadd)
tests_unit_test_unlock_turn_CFLAGS = $(unit_cflags)
tests_unit_test_unlock_turn_LDADD = $(unit_ldadd)
tests_unit_test_tasks_CFLAGS = $(unit_cflags)
tests_unit_test_tasks_LDADD = $(unit_ldadd)
tests_unit_test_tasks_LDFLAGS = $(AM_LDFLAGS) \
	-Wl,--wrap=pthread_create -Wl,--wrap=pthread_join
tests_unit_test_wrong_key_CFLAGS = $(unit_cflags)
tests_unit_test_wrong_key_LDADD = $(unit_ldadd)
tests_unit_test_tuning_CFLAGS = $(unit_cflags)
tests_unit_test_tuning_LDADD = $(unit_ldadd)
tests_unit_test_kdf_CFLAGS = $(unit_cflags)
tests_unit_test_kdf_LDADD = $(unit_ldadd)
tests_unit_test_unflushed_CFLAGS = $(unit_cflags)
tests_unit_test_unflushed_LDADD = $(unit_ldadd)
tests_unit_test_unlock_limit_CFLAGS = $(unit_cflags)
tests_unit_test_unlock_limit_LDADD = $(unit_ldadd)
tests_unit_test_json_CFLAGS = $(unit_cflags)
tests_unit_test_json_LDADD = $(unit_ldadd)
tests_unit_test_keyfile_CFLAGS = $(unit_cflags)
tests_unit_test_keyfile_LDADD = $(unit_ldadd)
tests_unit_test_keyref_CFLAGS = $(unit_cflags)
tests_unit_test_keyref_LDADD = $(unit_ldadd)
tests_unit_test_kms_CFLAGS = $(unit_cflags)
tests_unit_test_kms_LDADD = $(unit_ldadd)
tests_unit_test_kms_LDFLAGS = $(AM_LDFLAGS) -Wl,--wrap=profile_load
tests_unit_test_kmip_connection_CFLAGS = $(unit_cflags)
tests_unit_test_kmip_connection_LDADD = $(unit_ldadd) -lssl
tests_unit_test_kmip_message_CFLAGS = $(unit_cflags)
tests_unit_test_kmip_message_LDADD = $(unit_ldadd)
tests_unit_test_layout_CFLAGS = $(unit_cflags)
tests_unit_test_layout_LDADD = $(unit_ldadd)
tests_unit_test_profile_CFLAGS = $(unit_cflags)
tests_unit_test_profile_LDADD = $(unit_ldadd)
tests_unit_test_answer_CFLAGS = $(unit_cflags)
tests_unit_test_answer_LDADD = $(unit_ldadd)
tests_unit_test_engines_CFLAGS = $(unit_cflags)
tests_unit_test_engines_LDADD = $(unit_ldadd)
tests_unit_test_environment_CFLAGS = $(unit_cflags)
tests_unit_test_environment_LDADD = $(unit_ldadd)
tests_unit_test_example_SOURCES = \
	plugin/keys/example.c \
	tests/unit/test-example.c
tests_unit_test_example_CFLAGS = $(unit_cflags)
tests_unit_test_example_LDADD = $(unit_ldadd)
export_fakes = tests/unit/export-fakes.c tests/unit/export-fakes.h
tests_unit_test_export_SOURCES = $(export_fakes) tests/unit/test-export.c
tests_unit_test_export_CFLAGS = $(unit_cflags)
tests_unit_test_export_LDADD = $(unit_ldadd)
tests_unit_test_export_file_CFLAGS = $(unit_cflags)
tests_unit_test_export_file_LDADD = $(unit_ldadd)
tests_unit_test_export_keys_SOURCES = \
	$(export_fakes) \
	tests/unit/test-export-keys.c
tests_unit_test_export_keys_CFLAGS = $(unit_cflags)
tests_unit_test_export_keys_LDADD = $(unit_ldadd)
tests_unit_test_registry_SOURCES = $(export_fakes) tests/unit/test-registry.c
tests_unit_test_registry_CFLAGS = $(unit_cflags)
tests_unit_test_registry_LDADD = $(unit_ldadd)
tests_unit_test_rehearsal_SOURCES = \
	$(export_fakes) \
	tests/unit/test-rehearsal.c
tests_unit_test_rehearsal_CFLAGS = $(unit_cflags)
tests_unit_test_rehearsal_LDADD = $(unit_ldadd)
tests_unit_test_exposition_SOURCES = \
	$(export_fakes) \
	tests/unit/test-exposition.c
tests_unit_test_exposition_CFLAGS = $(unit_cflags)
tests_unit_test_exposition_LDADD = $(unit_ldadd)
tests_unit_test_metrics_CFLAGS = $(unit_cflags)
tests_unit_test_metrics_LDADD = $(unit_ldadd)
tests_unit_test_http_CFLAGS = $(unit_cflags)
tests_unit_test_http_LDADD = $(unit_ldadd)
tests_unit_test_volume_SOURCES = \
	$(luks_image) \
	tests/unit/test-volume.c
tests_unit_test_volume_CFLAGS = $(unit_cflags)
tests_unit_test_volume_LDADD = $(unit_ldadd)
tests_unit_test_xts_CFLAGS = $(unit_cflags)
tests_unit_test_xts_LDADD = $(unit_ldadd)
endif

# Built by name: make tests/bench/opens
EXTRA_PROGRAMS = tests/bench/opens
tests_bench_opens_LDADD = librbdcrypt.la
