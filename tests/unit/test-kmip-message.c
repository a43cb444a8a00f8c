/* SPDX-License-Identifier: BSD-3-Clause */

/* What PyKMIP answered (kmip-replies.txt), and what no server should. */

#include "config.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../../plugin/keys/kmip/kmip.h"
#include "encoding.h"

#define ADDRESS "kmip.example:5696"

static const unsigned char key_bytes[] =
    "\x00\x11\x22\x33\x44\x55\x66\x77\x88\x99\xaa\xbb\xcc\xdd\xee\xff"
    "\x00\x11\x22\x33\x44\x55\x66\x77\x88\x99\xaa\xbb\xcc\xdd\xee\xff";

/* The reply NAME of kmip-replies.txt. */
static struct secret *
recorded (const char *name)
{
  const char *srcdir = getenv ("srcdir");
  const size_t n = strlen (name);
  char path[4096], line[4096];
  struct secret *s = NULL;
  FILE *f;

  snprintf (path, sizeof path, "%s/tests/unit/kmip-replies.txt",
            srcdir ? srcdir : ".");
  f = fopen (path, "r");
  assert_non_null (f);
  while (!s && fgets (line, sizeof line, f))
    if (strncmp (line, name, n) == 0 && line[n] == ' ')
      assert_int_equal (
          hex_decode (line + n + 1, strcspn (line + n + 1, "\n"), &s), 0);
  fclose (f);
  if (!s)
    fail_msg ("no reply %s in %s", name, path);
  return s;
}

/* It must be one that can be read; REPLY points into *MESSAGE. */
static void
read_recorded (const char *name, enum kmip_operation operation,
               struct kmip_reply *reply, struct secret **message)
{
  struct reason why = { "" };

  *message = recorded (name);
  if (kmip_message_read (*message, operation, reply, &why) != 0)
    fail_msg ("%s: %s", name, why.text);
}

static void
says (const struct reason *why, const char *part)
{
  if (!strstr (why->text, part))
    fail_msg ("\"%s\" does not say \"%s\"", why->text, part);
}

/* ---- replies as they were ---- */

static void
test_a_symmetric_key (void **state)
{
  CLEANUP_SECRET struct secret *key = NULL;
  struct kmip_reply reply;
  CLEANUP_SECRET struct secret *s = NULL;
  bool passphrase = true;

  (void)state;
  read_recorded ("get-key", KMIP_GET, &reply, &s);
  assert_true (reply.success);
  assert_int_equal (kmip_reply_key (&reply, "1", &passphrase, &key, NULL), 0);
  assert_false (passphrase);
  assert_int_equal (key->length, 32);
  assert_memory_equal (key->bytes, key_bytes, 32);
}

static void
test_secret_data (void **state)
{
  CLEANUP_SECRET struct secret *key = NULL;
  struct kmip_reply reply;
  CLEANUP_SECRET struct secret *s = NULL;
  bool passphrase = false;

  (void)state;
  read_recorded ("get-secret", KMIP_GET, &reply, &s);
  assert_int_equal (kmip_reply_key (&reply, "4", &passphrase, &key, NULL), 0);
  assert_true (passphrase);
  assert_int_equal (key->length, 13);
  assert_memory_equal (key->bytes, "correct horse", 13);
}

static void
test_a_key_of_another_id_is_nonsense (void **state)
{
  struct secret *key = NULL;
  struct reason why = { "" };
  struct kmip_reply reply;
  CLEANUP_SECRET struct secret *s = NULL;
  bool passphrase;

  (void)state;
  read_recorded ("get-key", KMIP_GET, &reply, &s);
  assert_int_equal (kmip_reply_key (&reply, "11", &passphrase, &key, &why),
                    -EBADMSG);
  says (&why, "another object");
  assert_null (key);
}

static void
test_an_answer_to_another_question_is_nonsense (void **state)
{
  CLEANUP_SECRET struct secret *s = recorded ("get-key");
  struct reason why = { "" };
  struct kmip_reply reply;

  (void)state;
  assert_int_equal (kmip_message_read (s, KMIP_DECRYPT, &reply, &why),
                    -EBADMSG);
  says (&why, "another question");
}

static void
located (const char *name, int err, const char *expected)
{
  char ident[KMIP_ID_MAX + 1] = "untouched";
  struct kmip_reply reply;
  CLEANUP_SECRET struct secret *s = NULL;

  read_recorded (name, KMIP_LOCATE, &reply, &s);
  assert_int_equal (kmip_reply_located (&reply, ident, NULL), -err);
  assert_string_equal (ident, expected);
}

static void
test_locate (void **state)
{
  (void)state;
  located ("locate-one", 0, "1");
  located ("locate-two", EINVAL, "untouched");
  located ("locate-none", ENOENT, "untouched");
}

static void
state_is (const char *name, const char *ident, int err, const char *part)
{
  struct reason why = { "" };
  struct kmip_reply reply;
  CLEANUP_SECRET struct secret *s = NULL;
  uint32_t number = 0;

  read_recorded (name, KMIP_GET_ATTRIBUTES, &reply, &s);
  assert_int_equal (kmip_reply_state (&reply, ident, &number, &why), 0);
  assert_int_equal (kmip_state_refusal (number, "vol-1", ADDRESS, &why), -err);
  says (&why, part);
}

static void
test_state (void **state)
{
  struct reason why;

  (void)state;
  state_is ("state-active", "1", 0, "");
  state_is ("state-preactive", "2", EACCES, "Pre-Active");
  assert_int_equal (kmip_state_refusal (3, "v", ADDRESS, &why), -EACCES);
  says (&why, "Deactivated");
  assert_int_equal (kmip_state_refusal (4, "v", ADDRESS, &why), -EACCES);
  says (&why, "Compromised");
  assert_int_equal (kmip_state_refusal (5, "v", ADDRESS, &why), -ENOENT);
  says (&why, "Destroyed");
  assert_int_equal (kmip_state_refusal (6, "v", ADDRESS, &why), -ENOENT);
  assert_int_equal (kmip_state_refusal (0, "v", ADDRESS, &why), -EBADMSG);
  assert_int_equal (kmip_state_refusal (7, "v", ADDRESS, &why), -EBADMSG);
}

static void
test_decrypted_data (void **state)
{
  CLEANUP_SECRET struct secret *data = NULL;
  struct kmip_reply reply;
  CLEANUP_SECRET struct secret *s = NULL;

  (void)state;
  read_recorded ("decrypted", KMIP_DECRYPT, &reply, &s);
  assert_int_equal (kmip_reply_data (&reply, "1", &data, NULL), 0);
  assert_int_equal (data->length, 13);
  assert_memory_equal (data->bytes, "correct horse", 13);
}

static void
refused (const char *name, enum kmip_operation operation, int err, bool retried,
         const char *part)
{
  struct reason why = { "" };
  struct kmip_reply reply;
  CLEANUP_SECRET struct secret *s = NULL;
  bool again = !retried;

  read_recorded (name, operation, &reply, &s);
  assert_false (reply.success);
  assert_int_equal (
      kmip_reply_refusal (&reply, operation, "vol-1", ADDRESS, &again, &why),
      -err);
  assert_int_equal (again, retried);
  says (&why, ADDRESS);
  says (&why, "vol-1");
  says (&why, part);
}

/* The texts of the first two are the same. */
static void
test_refusals (void **state)
{
  (void)state;
  refused ("denied", KMIP_GET, EACCES, false, "Permission Denied");
  refused ("missing", KMIP_GET, ENOENT, false, "Item Not Found");
  refused ("version", KMIP_GET, EINVAL, false, "\"version\"");
  refused ("bad-tag", KMIP_DECRYPT, EAGAIN, true, "changed ciphertext");
  refused ("decrypt-preactive", KMIP_DECRYPT, EACCES, false, "Active");
  refused ("decrypt-10", KMIP_DECRYPT, EINVAL, false, "Not Supported");
}

static void
test_an_unknown_version_is_misunderstood (void **state)
{
  struct kmip_reply reply;
  CLEANUP_SECRET struct secret *s = NULL;
  CLEANUP_SECRET struct secret *t = NULL;

  (void)state;
  read_recorded ("version", KMIP_GET, &reply, &s);
  assert_true (reply.misunderstood);
  read_recorded ("denied", KMIP_GET, &reply, &t);
  assert_false (reply.misunderstood);
}

static void
test_reasons_that_pykmip_does_not_give (void **state)
{
  static const struct {
    uint32_t reason;
    int err;
  } cases[] = { { 3, EACCES },    { 0xa, EACCES },       { 0xb, EINVAL },
                { 0xd, ENOENT },  { 0x16, EACCES },      { 0x17, EACCES },
                { 2, EBADMSG },   { 0x100, EAGAIN },     { 0x99, EAGAIN },
                { 0x13, ENOENT }, { 0x80000001, EAGAIN } };

  (void)state;
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    const struct kmip_reply reply = { .reason = cases[i].reason };
    struct reason why;
    bool again;

    assert_int_equal (
        kmip_reply_refusal (&reply, KMIP_GET, "v", ADDRESS, &again, &why),
        -cases[i].err);
  }
}

/* ---- replies as they should not be ---- */

/* A reply that is written here, an item at a time. */
struct made {
  struct secret *out;
  struct ttlv_writer w;
};

static struct made
begin (uint32_t operation, uint32_t status)
{
  struct made m = { .out = secret_new (8192) };

  m.w = (struct ttlv_writer){ .out = m.out };
  ttlv_open (&m.w, 0x42007b);
  ttlv_open (&m.w, 0x42007a);
  ttlv_open (&m.w, 0x420069);
  ttlv_put_integer (&m.w, 0x42006a, 1);
  ttlv_put_integer (&m.w, 0x42006b, 2);
  ttlv_close (&m.w);
  ttlv_put_integer (&m.w, 0x42000d, 1);
  ttlv_close (&m.w);
  ttlv_open (&m.w, 0x42000f);
  ttlv_put_enumeration (&m.w, 0x42005c, operation);
  ttlv_put_enumeration (&m.w, 0x42007f, status);
  return m;
}

static void
finish_saying (struct made *m, enum kmip_operation operation, int err,
               struct kmip_reply *reply, const char *part)
{
  struct reason why = { "" };

  while (m->w.depth > 0)
    ttlv_close (&m->w);
  assert_int_equal (ttlv_end_writing (&m->w), 0);
  assert_int_equal (kmip_message_read (m->out, operation, reply, &why), -err);
  says (&why, part);
}

static void
finish (struct made *m, enum kmip_operation operation, int err,
        struct kmip_reply *reply)
{
  finish_saying (m, operation, err, reply, "");
}

static void
test_a_failure_needs_a_reason (void **state)
{
  struct made m = begin (KMIP_GET, 1);
  struct kmip_reply reply;

  (void)state;
  ttlv_put_text (&m.w, 0x42007d, "the HSM is on fire");
  finish_saying (&m, KMIP_GET, EBADMSG, &reply,
                 "a failure without a reason: the HSM is on fire");
  secret_free (m.out);
}

static void
test_pending_is_nonsense (void **state)
{
  struct made m = begin (KMIP_GET, 2);
  struct kmip_reply reply;

  (void)state;
  ttlv_put_text (&m.w, 0x42007d, "wait");
  finish_saying (&m, KMIP_GET, EBADMSG, &reply, "nor a failure: wait");
  secret_free (m.out);
}

static void
test_two_statuses_are_nonsense (void **state)
{
  struct made m = begin (KMIP_GET, 0);
  struct kmip_reply reply;

  (void)state;
  ttlv_put_enumeration (&m.w, 0x42007f, 0);
  finish (&m, KMIP_GET, EBADMSG, &reply);
  secret_free (m.out);
}

static void
test_a_payload_that_is_no_structure_is_nonsense (void **state)
{
  struct made m = begin (KMIP_GET, 0);
  struct kmip_reply reply;

  (void)state;
  ttlv_put_text (&m.w, 0x42007c, "payload");
  finish (&m, KMIP_GET, EBADMSG, &reply);
  secret_free (m.out);
}

static void
test_a_success_without_payload_has_no_key (void **state)
{
  struct made m = begin (KMIP_GET, 0);
  struct kmip_reply reply;
  struct secret *key = NULL;
  bool passphrase;

  (void)state;
  finish (&m, KMIP_GET, 0, &reply);
  assert_int_equal (kmip_reply_key (&reply, "1", &passphrase, &key, NULL),
                    -EBADMSG);
  secret_free (m.out);
}

/* An answer to Get of the id "1", as the arguments say. */
struct key_reply {
  uint32_t type, tag, format;
  const char *material;
  size_t length;
  bool wrapped;     /* with Key Wrapping Data */
  bool plain_value; /* Key Value is bytes */
};

static void
key_refused (const struct key_reply *k, const char *part)
{
  struct made m = begin (KMIP_GET, 0);
  struct reason why = { "" };
  struct kmip_reply reply;
  struct secret *key = NULL;
  bool passphrase;

  ttlv_open (&m.w, 0x42007c);
  ttlv_put_enumeration (&m.w, 0x420057, k->type);
  ttlv_put_text (&m.w, 0x420094, "1");
  ttlv_open (&m.w, k->tag);
  ttlv_open (&m.w, 0x420040);
  ttlv_put_enumeration (&m.w, 0x420042, k->format);
  if (k->plain_value)
    ttlv_put_bytes (&m.w, 0x420045, k->material, k->length);
  else {
    ttlv_open (&m.w, 0x420045);
    ttlv_put_bytes (&m.w, 0x420043, k->material, k->length);
    ttlv_close (&m.w);
  }
  if (k->wrapped) {
    ttlv_open (&m.w, 0x420046);
    ttlv_close (&m.w);
  }
  finish (&m, KMIP_GET, 0, &reply);
  assert_int_equal (kmip_reply_key (&reply, "1", &passphrase, &key, &why),
                    part ? -EBADMSG : 0);
  if (part)
    says (&why, part);
  secret_free (key);
  secret_free (m.out);
}

static void
test_keys_that_are_none (void **state)
{
  const struct key_reply good = { 2,  0x42008f, 1,    "0123456789abcdef",
                                  16, false,    false };
  struct key_reply k = good;

  (void)state;
  key_refused (&good, NULL);
  k.type = 3;
  key_refused (&k, "of type 3");
  k = good;
  k.tag = 0x420085;
  key_refused (&k, "no object of its type");
  k = good;
  k.format = 7;
  key_refused (&k, "format 7");
  k = good;
  k.length = 0;
  key_refused (&k, "empty");
  k = good;
  k.wrapped = true;
  key_refused (&k, "wraps the key");
  k = good;
  k.plain_value = true;
  key_refused (&k, "Key Value");
}

static void
test_identifiers_that_are_none (void **state)
{
  static const char *const bad[] = { "", "a\nb", "\x7f", NULL };
  char ident[KMIP_ID_MAX + 1], longer[KMIP_ID_MAX + 2];

  (void)state;
  memset (longer, 'x', sizeof longer - 1);
  longer[sizeof longer - 1] = '\0';
  for (int i = 0; i < 4; i++) {
    struct made m = begin (KMIP_LOCATE, 0);
    struct kmip_reply reply;

    ttlv_open (&m.w, 0x42007c);
    ttlv_put_text (&m.w, 0x420094, bad[i] ? bad[i] : longer);
    finish (&m, KMIP_LOCATE, 0, &reply);
    assert_int_equal (kmip_reply_located (&reply, ident, NULL), -EBADMSG);
    secret_free (m.out);
  }
}

static void
test_every_truncation_is_refused (void **state)
{
  static const char *const names[] = { "get-key", "locate-two", "denied",
                                       "state-active" };

  (void)state;
  for (int i = 0; i < 4; i++) {
    CLEANUP_SECRET struct secret *s = recorded (names[i]);
    struct kmip_reply reply;

    for (size_t n = s->length; n-- > 0;) {
      s->length = n;
      assert_int_equal (kmip_message_read (s, KMIP_GET, &reply, NULL),
                        -EBADMSG);
    }
  }
}

/* Whatever one byte becomes: an answer or an error, and never a crash. */
static void
test_every_byte_may_lie (void **state)
{
  CLEANUP_SECRET struct secret *s = recorded ("get-key");

  (void)state;
  for (size_t i = 0; i < s->length; i++)
    for (int bit = 0; bit < 8; bit++) {
      struct secret *key = NULL;
      struct reason why = { "" };
      struct kmip_reply reply;
      bool passphrase;
      int r;

      s->bytes[i] ^= 1 << bit;
      r = kmip_message_read (s, KMIP_GET, &reply, &why);
      if (r == 0 && reply.success)
        r = kmip_reply_key (&reply, "1", &passphrase, &key, &why);
      assert_true (r == 0 || why.text[0]);
      secret_free (key);
      s->bytes[i] ^= 1 << bit;
    }
}

/* ---- requests ---- */

static void
test_requests_are_sound (void **state)
{
  const struct kmip_request requests[] = {
    { KMIP_LOCATE, "volumes/v", NULL },
    { KMIP_GET, "1", NULL },
    { KMIP_GET_ATTRIBUTES, "1", NULL },
  };

  (void)state;
  for (size_t i = 0; i < sizeof requests / sizeof requests[0]; i++) {
    CLEANUP_SECRET struct secret *out = NULL;

    assert_int_equal (kmip_message_write (&requests[i], 2, &out, NULL), 0);
    assert_int_equal (ttlv_check (out->bytes, out->length, NULL), 0);
    assert_int_equal (ttlv_message_length (out->bytes, 0x420078), out->length);
  }
}

/* ---- wrapped passphrases ---- */

#define IV12 "AAAAAAAAAAAAAAAA"
#define B16 "AAAAAAAAAAAAAAAAAAAAAA=="

static void
test_wrapped_passphrases_are_read (void **state)
{
  struct kmip_wrapped w;

  (void)state;
  assert_int_equal (
      kmip_wrapped_parse ("kmip:v1:gcm:" IV12 ":c2VjcmV0:" B16, &w, NULL), 0);
  assert_true (w.gcm);
  assert_int_equal (w.iv->length, 12);
  assert_memory_equal (w.data->bytes, "secret", 6);
  assert_int_equal (w.tag->length, 16);
  kmip_wrapped_free (&w);
  assert_int_equal (kmip_wrapped_parse ("kmip:v1:cbc:" B16 ":" B16, &w, NULL),
                    0);
  assert_false (w.gcm);
  assert_null (w.tag);
  kmip_wrapped_free (&w);
}

static void
test_wrapped_passphrases_that_are_none (void **state)
{
  static const char *const bad[] = {
    "",
    "kmip",
    "kmip:v1",
    "kmip:v2:gcm:" IV12 ":c2VjcmV0:" B16,
    "kmip:v1:ecb:" IV12 ":c2VjcmV0:" B16,
    "kmip:v1:gcm:",
    "kmip:v1:gcm:" IV12,
    "kmip:v1:gcm:" IV12 ":c2VjcmV0",
    "kmip:v1:gcm:" IV12 ":c2VjcmV0:",
    "kmip:v1:gcm:" IV12 "::" B16,
    "kmip:v1:gcm::c2VjcmV0:" B16,
    "kmip:v1:gcm:" IV12 ":c2VjcmV0:" B16 ":",
    "kmip:v1:gcm:" IV12 ":c2VjcmV0:" B16 ":" B16,
    "kmip:v1:gcm:" B16 ":c2VjcmV0:" B16,
    "kmip:v1:gcm:" IV12 ":c2VjcmV0:" IV12,
    "kmip:v1:gcm:" IV12 ":c2VjcmV0=:" B16,
    "kmip:v1:gcm:" IV12 ":c2Vj cmV0:" B16,
    "kmip:v1:gcm:" IV12 ":../../x:" B16,
    "kmip:v1:cbc:" B16,
    "kmip:v1:cbc:" B16 ":c2VjcmV0",
    "kmip:v1:cbc:" IV12 ":" B16,
    "kmip:v1:cbc:" B16 ":" B16 ":" B16,
    "KMIP:v1:cbc:" B16 ":" B16,
  };

  (void)state;
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
    struct reason why = { "" };
    struct kmip_wrapped w = { .gcm = true };

    if (kmip_wrapped_parse (bad[i], &w, &why) != -EINVAL || !why.text[0])
      fail_msg ("%s was taken", bad[i]);
  }
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_a_symmetric_key),
    cmocka_unit_test (test_secret_data),
    cmocka_unit_test (test_a_key_of_another_id_is_nonsense),
    cmocka_unit_test (test_an_answer_to_another_question_is_nonsense),
    cmocka_unit_test (test_locate),
    cmocka_unit_test (test_state),
    cmocka_unit_test (test_decrypted_data),
    cmocka_unit_test (test_refusals),
    cmocka_unit_test (test_an_unknown_version_is_misunderstood),
    cmocka_unit_test (test_reasons_that_pykmip_does_not_give),
    cmocka_unit_test (test_a_failure_needs_a_reason),
    cmocka_unit_test (test_pending_is_nonsense),
    cmocka_unit_test (test_two_statuses_are_nonsense),
    cmocka_unit_test (test_a_payload_that_is_no_structure_is_nonsense),
    cmocka_unit_test (test_a_success_without_payload_has_no_key),
    cmocka_unit_test (test_keys_that_are_none),
    cmocka_unit_test (test_identifiers_that_are_none),
    cmocka_unit_test (test_every_truncation_is_refused),
    cmocka_unit_test (test_every_byte_may_lie),
    cmocka_unit_test (test_requests_are_sound),
    cmocka_unit_test (test_wrapped_passphrases_are_read),
    cmocka_unit_test (test_wrapped_passphrases_that_are_none),
  };

  return cmocka_run_group_tests (tests, NULL, NULL);
}
