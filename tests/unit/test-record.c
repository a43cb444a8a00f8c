/* SPDX-License-Identifier: BSD-3-Clause */

#include "config.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "keys.h"

#define ID "10ab3f"
#define PROFILES                                                               \
  "{\"profiles\":{\"p\":{\"type\":\"openbao\",\"images\":[\"rbd/*\"]},"        \
  "\"theirs\":{\"type\":\"openbao\",\"images\":[\"other/*\"]},"                \
  "\"private\":{\"type\":\"openbao\"}}}"

/* A record in metadata, with MEMBERS in place of profile and reference. */
#define RECORD(members) "{\"version\":1," members ",\"image_id\":\"" ID "\"}"
#define TOKEN(members)                                                         \
  "{\"type\":\"rbdcrypt\",\"keyslots\":[\"0\"],\"version\":1," members         \
  ",\"image_id\":\"" ID "\"}"
#define VOL "\"profile\":\"p\",\"reference\":\"vol\""

static char profiles[64];

struct image {
  const char *metadata;
  const char *tokens[40]; /* the first NULL ends it */
  int err;                /* of the metadata */
};

static int
metadata (void *opaque, const char *name, struct secret **ret,
          struct reason *why)
{
  const struct image *image = opaque;

  assert_string_equal (name, KEY_RECORD_METADATA);
  if (image->err)
    return reason_set (why, image->err, "metadata");
  if (!image->metadata)
    return reason_set (why, ENOENT, "no metadata");
  *ret = secret_copy (image->metadata, strlen (image->metadata));
  return 0;
}

static int
tokens (void *opaque, const char *type,
        int (*fn) (void *arg, int number, const char *text), void *arg,
        struct reason *why)
{
  const struct image *image = opaque;

  (void)why;
  assert_string_equal (type, KEY_RECORD_TOKEN);
  for (int i = 0; image->tokens[i]; i++) {
    const int r = fn (arg, i, image->tokens[i]);

    if (r)
      return r;
  }
  return 0;
}

static int
look (struct image *image, char **ref, struct reason *why)
{
  const struct image_identity identity = { .image = "rbd/vol",
                                           .id = ID,
                                           .metadata = metadata,
                                           .tokens = tokens,
                                           .opaque = image };

  return record_find (&identity, profiles, ref, why);
}

static void
follows (struct image *image, const char *expected)
{
  struct reason why = { "" };
  char *ref = NULL;
  int r = look (image, &ref, &why);

  if (r < 0)
    fail_msg ("%d: %s", r, why.text);
  assert_string_equal (ref, expected);
  free (ref);
}

static void
refuses (struct image *image, int err, const char *words)
{
  struct reason why = { "" };
  char *ref = NULL;
  int r = look (image, &ref, &why);

  if (r != -err)
    fail_msg ("%d instead of %d for %.200s: %s", r, -err,
              image->metadata ? image->metadata : image->tokens[0],
              r < 0 ? why.text : ref);
  assert_null (ref);
  if (!strstr (why.text, words))
    fail_msg ("\"%s\" does not say \"%s\"", why.text, words);
}

static void
a_record_is_followed_wherever_it_is (void **state)
{
  struct image in_metadata = { .metadata = RECORD (VOL) };
  struct image in_token = { .tokens = { TOKEN (VOL) } };
  struct image in_both = { .metadata = RECORD (VOL),
                           .tokens = { TOKEN (VOL), TOKEN (VOL) } };

  (void)state;
  follows (&in_metadata, "p:vol");
  follows (&in_token, "p:vol");
  follows (&in_both, "p:vol");
}

static void
a_wrapped_key_is_the_reference (void **state)
{
  struct image image = {
    .metadata = RECORD ("\"profile\":\"p\",\"wrapped\":\"vault:v1:a//b+=\"")
  };

  (void)state;
  follows (&image, "p:vault:v1:a//b+=");
}

static void
nothing_recorded_is_said (void **state)
{
  struct image image = { .metadata = NULL };

  (void)state;
  refuses (&image, ENOENT, "rbd/vol records no key");
}

static void
records_that_differ_are_refused (void **state)
{
  struct image image = {
    .metadata = RECORD ("\"profile\":\"p\",\"reference\":\"other\""),
    .tokens = { TOKEN (VOL) },
  };

  (void)state;
  refuses (&image, EINVAL, "two different");
}

/* Clones inherit what their parents have. */
static void
a_record_for_another_image_is_explained (void **state)
{
#define THEIRS                                                                 \
  "{\"version\":1," VOL ",\"image_id\":\"77aa\",\"created\":\"2026\"}"
  struct image inherited = { .metadata = THEIRS };
  struct image bound = { .metadata = THEIRS, .tokens = { TOKEN (VOL) } };

  (void)state;
  refuses (&inherited, ESTALE, "rbdcrypt bind");
  refuses (&inherited, ESTALE, "\"77aa\"");
  follows (&bound, "p:vol");
}

static void
profiles_that_do_not_let_the_image_are_refused (void **state)
{
  struct image other = { .metadata = RECORD (
                             "\"profile\":\"theirs\",\"reference\":\"vol\"") };
  struct image nobody = {
    .metadata = RECORD ("\"profile\":\"private\",\"reference\":\"vol\"")
  };
  struct image unknown = {
    .metadata = RECORD ("\"profile\":\"nosuch\",\"reference\":\"vol\"")
  };

  (void)state;
  refuses (&other, EINVAL, "\"images\"");
  refuses (&nobody, EINVAL, "\"images\"");
  refuses (&unknown, EINVAL, "nosuch");
}

static void
no_kind_of_key_of_this_host_can_be_named (void **state)
{
  static const char *const schemes[] = { "file", "line",  "fd",
                                         "cred", "vault", "bao" };

  (void)state;
  for (size_t i = 0; i < sizeof schemes / sizeof schemes[0]; i++) {
    char text[256];
    struct image image = { .metadata = text };

    snprintf (text, sizeof text,
              RECORD ("\"profile\":\"%s\",\"reference\":\"/etc/shadow\""),
              schemes[i]);
    refuses (&image, EINVAL, "profiles only");
  }
}

static void
malformed_records_are_refused (void **state)
{
  static const char *const texts[] = {
    "",
    "x",
    "[]",
    "{}",
    "{\"version\":1}",
    "{\"version\":2," VOL ",\"image_id\":\"" ID "\"}",
    "{\"version\":\"1\"," VOL ",\"image_id\":\"" ID "\"}",
    "{\"version\":1," VOL "}",
    "{\"version\":1," VOL ",\"image_id\":7}",
    RECORD ("\"profile\":\"p\""),
    RECORD ("\"profile\":\"p\",\"reference\":\"\""),
    RECORD ("\"profile\":\"p\",\"reference\":\"a\",\"wrapped\":\"b\""),
    RECORD (VOL ",\"address\":\"https://evil.example\""),
    RECORD (VOL ",\"profile\":\"p\""),
    RECORD (VOL ",\"keyslots\":[]") "x",
    RECORD ("\"profile\":\"\",\"reference\":\"vol\""),
    RECORD ("\"profile\":\"p:q\",\"reference\":\"vol\""),
    RECORD ("\"profile\":\"../p\",\"reference\":\"vol\""),
    RECORD ("\"profile\":\"p\\n\",\"reference\":\"vol\""),
    RECORD ("\"profile\":\"p\",\"reference\":\"a\\u0001b\""),
    RECORD ("\"profile\":\"p\",\"reference\":\"a\\u0000b\""),
    RECORD ("\"profile\":\"p\",\"reference\":{\"x\":[]}"),
    RECORD ("\"profile\":\"none\",\"reference\":\"\""),
  };

  (void)state;
  for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
    struct image image = { .metadata = texts[i] };

    refuses (&image, EINVAL, KEY_RECORD_METADATA);
  }
}

static void
one_bad_token_spoils_the_good_ones (void **state)
{
  struct image image = { .tokens = { TOKEN (VOL), "{\"type\":\"rbdcrypt\"}" } };

  (void)state;
  refuses (&image, EINVAL, "token 1");
}

static void
long_ids_are_refused_and_cut_in_sentences (void **state)
{
  const size_t length = 128 * 1024;
  char *text = malloc (length + 256);
  char *id = malloc (length + 1);
  struct image image = { .metadata = text };

  (void)state;
  assert_non_null (text);
  assert_non_null (id);
  memset (id, 'a', length);
  id[length] = '\0';
  sprintf (text, "{\"version\":1," VOL ",\"image_id\":\"%s\"}", id);
  refuses (&image, ESTALE, "...");
  sprintf (text, RECORD ("\"profile\":\"p\",\"reference\":\"%s\""), id);
  refuses (&image, EINVAL, KEY_RECORD_METADATA);
  sprintf (text, RECORD ("\"profile\":\"%s\",\"reference\":\"vol\""), id);
  refuses (&image, EINVAL, KEY_RECORD_METADATA);
  image.err = EBADMSG; /* longer than IMAGE_IDENTITY_TEXT_MAX */
  refuses (&image, EINVAL, KEY_RECORD_METADATA);
  free (id);
  free (text);
}

static void
thirty_two_tokens_are_looked_at (void **state)
{
  struct image image = { .metadata = NULL };

  (void)state;
  for (int i = 0; i < 32; i++)
    image.tokens[i] = TOKEN (VOL);
  follows (&image, "p:vol");
  image.tokens[31] = TOKEN ("\"profile\":\"p\",\"reference\":\"other\"");
  refuses (&image, EINVAL, "token 31");
}

static void
metadata_that_cannot_be_read_are_not_absent (void **state)
{
  struct image image = { .err = EIO };

  (void)state;
  refuses (&image, EIO, KEY_RECORD_METADATA);
}

/* Nothing that says where to ask, or as whom; in metadata nothing that
 * LUKS2 alone asks for.
 */
static void
unknown_members_are_named (void **state)
{
  static const char *const names[] = {
    "address", "mount", "namespace", "auth",     "ca_file", "prefix",
    "token",   "key",   "images",    "keyslots", "type",
  };
  struct image bare = { .tokens = { RECORD (VOL) } };

  (void)state;
  for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
    char text[256], words[64];
    struct image image = { .metadata = text };

    snprintf (text, sizeof text, RECORD (VOL ",\"%s\":\"x\""), names[i]);
    snprintf (words, sizeof words, "unknown member \"%s\"", names[i]);
    refuses (&image, EINVAL, words);
  }
  refuses (&bare, EINVAL, "missing");
}

static void
the_longest_reference_is_followed (void **state)
{
  char body[KEY_REFERENCE_MAX], text[KEY_REFERENCE_MAX + 256];
  char ref[KEY_REFERENCE_MAX + 16];
  struct image image = { .metadata = text };

  (void)state;
  memset (body, 'x', sizeof body);
  for (size_t length = sizeof body - 2; length < sizeof body; length++) {
    snprintf (text, sizeof text,
              RECORD ("\"profile\":\"p\",\"reference\":\"%.*s\""), (int)length,
              body);
    snprintf (ref, sizeof ref, "p:%.*s", (int)length, body);
    if (strlen (ref) <= KEY_REFERENCE_MAX)
      follows (&image, ref);
    else
      refuses (&image, EINVAL, "do not form a key reference");
  }
}

/* Whatever it names: it is not ours.  Ids are compared whole. */
static void
what_is_inherited_is_not_judged (void **state)
{
  struct image scheme = { .metadata =
                              "{\"version\":1,\"profile\":\"file\","
                              "\"reference\":\"x\",\"image_id\":\"77aa\"}" };
  struct image longer = { .metadata = "{\"version\":1," VOL
                                      ",\"image_id\":\"" ID "0\"}" };
  struct image empty = { .metadata =
                             "{\"version\":1," VOL ",\"image_id\":\"\"}" };

  (void)state;
  refuses (&scheme, ESTALE, "inherits");
  refuses (&longer, ESTALE, "inherits");
  refuses (&empty, ESTALE, "inherits");
}

static int
look_unlocked (struct image *image, char **ref)
{
  const struct image_identity identity = {
    .image = "rbd/vol", .id = ID, .metadata = metadata, .opaque = image
  };

  return record_find (&identity, profiles, ref, NULL);
}

static void
an_unlocked_image_has_its_metadata (void **state)
{
  struct image image = { .metadata = RECORD (VOL), .tokens = { "{" } };
  char *ref = NULL;

  (void)state;
  assert_int_equal (look_unlocked (&image, &ref), 0);
  assert_string_equal (ref, "p:vol");
  free (ref);
}

static void
what_is_written_is_followed (void **state)
{
  const struct image_identity identity = { .image = "rbd/vol", .id = ID };

  (void)state;
  for (int keyslot = -1; keyslot <= 0; keyslot++) {
    struct image image = { .metadata = NULL };
    struct key *key = NULL;
    char *text = NULL;

    assert_int_equal (key_parse ("p:dir/vol-1", &key, NULL), 0);
    assert_int_equal (
        record_format (key, &identity, profiles, keyslot, &text, NULL), 0);
    if (keyslot < 0)
      image.metadata = text;
    else
      image.tokens[0] = text;
    follows (&image, "p:dir/vol-1");
    free (text);
    key_free (key);
  }
}

static void
what_may_not_be_named_is_not_written (void **state)
{
  const struct image_identity identity = { .image = "rbd/vol", .id = ID };
  struct reason why = { "" };
  struct key *key = NULL;
  char *text = NULL;

  (void)state;
  assert_int_equal (key_parse ("theirs:vol", &key, NULL), 0);
  assert_int_equal (record_format (key, &identity, profiles, 0, &text, &why),
                    -EINVAL);
  assert_null (text);
  assert_non_null (strstr (why.text, "\"images\""));
  key_free (key);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (a_record_is_followed_wherever_it_is),
    cmocka_unit_test (a_wrapped_key_is_the_reference),
    cmocka_unit_test (nothing_recorded_is_said),
    cmocka_unit_test (records_that_differ_are_refused),
    cmocka_unit_test (a_record_for_another_image_is_explained),
    cmocka_unit_test (profiles_that_do_not_let_the_image_are_refused),
    cmocka_unit_test (no_kind_of_key_of_this_host_can_be_named),
    cmocka_unit_test (malformed_records_are_refused),
    cmocka_unit_test (one_bad_token_spoils_the_good_ones),
    cmocka_unit_test (long_ids_are_refused_and_cut_in_sentences),
    cmocka_unit_test (thirty_two_tokens_are_looked_at),
    cmocka_unit_test (metadata_that_cannot_be_read_are_not_absent),
    cmocka_unit_test (unknown_members_are_named),
    cmocka_unit_test (the_longest_reference_is_followed),
    cmocka_unit_test (what_is_inherited_is_not_judged),
    cmocka_unit_test (an_unlocked_image_has_its_metadata),
    cmocka_unit_test (what_is_written_is_followed),
    cmocka_unit_test (what_may_not_be_named_is_not_written),
  };
  const int fd = memfd_create ("profiles", MFD_CLOEXEC);

  if (key_global_init () < 0 || fd == -1 || fchmod (fd, 0600) == -1 ||
      write (fd, PROFILES, strlen (PROFILES)) != (ssize_t)strlen (PROFILES))
    return 1;
  snprintf (profiles, sizeof profiles, "/proc/self/fd/%d", fd);
  return cmocka_run_group_tests (tests, NULL, NULL);
}
