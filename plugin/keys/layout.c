/* SPDX-License-Identifier: BSD-3-Clause */

/* From a record, as a KMS keeps it, to a passphrase.
 *
 * The sentences name fields and never what is in them.
 */

#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "encoding.h"
#include "keys.h"

const char *const layout_kinds[] = { "castellan", "ceph-csi", "rgw",
                                     "field",     "raw",      NULL };
const char *const layout_encodings[] = { "text", "hex", "base64", NULL };

int
layout_check_cinder_id (const char *ident, struct reason *why)
{
  size_t zeros = 0, n;

  for (n = 0; ident[n] == '0' || ident[n] == '-'; n++)
    zeros += ident[n] == '0';
  if (ident[n] || zeros != 32)
    return 0;
  return reason_set (why, EINVAL,
                     "a key id of zeros is that of Cinder's ConfKeyManager, "
                     "which stores no keys: the passphrase is \"fixed_key\" "
                     "of [key_manager] in cinder.conf, in lower case; put it "
                     "into a file and use key=line:PATH");
}

/* "value, type, name": enough of the names to see what is there. */
#define LIST_MAX 400

static const char *
list_names (json_t *record, char list[LIST_MAX])
{
  char buf[REASON_NAME_MAX];
  const char *name;
  json_t *value;
  size_t n = 0;

  snprintf (list, LIST_MAX, "none");
  json_object_foreach (record, name, value)
  {
    if (n + REASON_NAME_MAX + 8 > LIST_MAX) {
      snprintf (list + n, LIST_MAX - n, ", ...");
      return list;
    }
    n += snprintf (list + n, LIST_MAX - n, "%s%s", n > 0 ? ", " : "",
                   reason_name (buf, name));
  }
  return list;
}

/* A member that must be a string with something in it. */
static int
get_string (json_t *record, const char *field, const char **ret, size_t *length,
            struct reason *why)
{
  char buf[REASON_NAME_MAX], list[LIST_MAX];
  json_t *value = json_object_get (record, field);

  reason_name (buf, field);
  if (!value)
    return reason_set (why, EBADMSG,
                       "the record has no field \"%s\" (its fields: %s)", buf,
                       list_names (record, list));
  if (json_is_null (value))
    return reason_set (why, EBADMSG, "the record's field \"%s\" is null", buf);
  if (!json_is_string (value))
    return reason_set (why, EBADMSG,
                       "the record's field \"%s\" is not a string", buf);
  if (json_string_length (value) == 0)
    return reason_set (why, EBADMSG, "the record's field \"%s\" is empty", buf);
  *ret = json_string_value (value);
  *length = json_string_length (value);
  return 0;
}

static int
field_passphrase (json_t *record, const char *field,
                  enum layout_encoding encoding, struct secret **ret,
                  struct reason *why)
{
  static const char *const names[] = { "text", "hexadecimal", "base64" };
  const char *text;
  size_t length;
  char buf[REASON_NAME_MAX];
  int r = get_string (record, field, &text, &length, why);

  if (r < 0)
    return r;
  if (encoding == ENCODING_HEX)
    r = hex_decode (text, length, ret);
  else if (encoding == ENCODING_BASE64)
    r = base64_decode (text, length, ret);
  else if (length > SECRET_PASSPHRASE_MAX)
    r = -E2BIG;
  else
    r = text_copy_secret (ret, text, length, why);
  reason_name (buf, field);
  if (r == -ENOMEM)
    return reason_no_memory (why);
  if (r == -E2BIG)
    return reason_set (why, EBADMSG,
                       "the record's field \"%s\" is longer than %d bytes", buf,
                       SECRET_PASSPHRASE_MAX);
  if (r < 0)
    return reason_set (why, EBADMSG, "the record's field \"%s\" is not %s%s",
                       buf, names[encoding],
                       memchr (text, '\n', length) ? ": it holds a newline"
                                                   : "");
  return 0;
}

static int
raw_passphrase (json_t *record, struct secret **ret, struct reason *why)
{
  char list[LIST_MAX];

  if (json_object_size (record) != 1)
    return reason_set (why, EBADMSG,
                       "the record does not have exactly one field: say which "
                       "one holds the passphrase (its fields: %s)",
                       list_names (record, list));
  return field_passphrase (record,
                           json_object_iter_key (json_object_iter (record)),
                           ENCODING_TEXT, ret, why);
}

/* What Nova and Cinder do with the bytes of a symmetric key. */
static struct secret *
hexlify (const struct secret *bytes)
{
  static const char digits[] = "0123456789abcdef";
  struct secret *hex = secret_new (2 * bytes->length);

  for (size_t i = 0; hex && i < bytes->length; i++) {
    hex->bytes[hex->length++] = digits[bytes->bytes[i] >> 4];
    hex->bytes[hex->length++] = digits[bytes->bytes[i] & 15];
  }
  return hex;
}

/* Nova and Cinder hand QEMU hexlify(key) for a symmetric key, and
 * os-brick the bytes themselves for a passphrase.  Castellan keeps both
 * in hex.
 */
static int
castellan_passphrase (json_t *record, struct secret **ret, struct reason *why)
{
  CLEANUP_SECRET struct secret *bytes = NULL;
  const char *type;
  size_t length;
  int r = get_string (record, "type", &type, &length, why);

  if (r == 0)
    r = field_passphrase (record, "value", ENCODING_HEX, &bytes, why);
  if (r < 0)
    return r;
  if (strcmp (type, "passphrase") == 0) {
    *ret = TAKE_PTR (bytes);
    return 0;
  }
  if (strcmp (type, "symmetric") != 0) {
    char buf[REASON_NAME_MAX];

    return reason_set (why, EBADMSG,
                       "the record's type is \"%s\": only symmetric and "
                       "passphrase open a volume",
                       reason_name (buf, type));
  }
  if (2 * bytes->length > SECRET_PASSPHRASE_MAX)
    return reason_set (why, EBADMSG,
                       "the record's field \"value\" is longer than %d bytes",
                       SECRET_PASSPHRASE_MAX);
  *ret = hexlify (bytes);
  return *ret ? 0 : reason_no_memory (why);
}

/* ceph-csi wraps what it stores in "data" itself, in KV version 1 and 2:
 * over version 2 that is data.data.data.passphrase.
 */
static int
ceph_csi_passphrase (json_t *record, struct secret **ret, struct reason *why)
{
  json_t *data = json_object_get (record, "data");
  char list[LIST_MAX];
  int r;

  if (!json_is_object (data))
    return reason_set (why, EBADMSG,
                       "the record has no object \"data\", as ceph-csi's do "
                       "(its fields: %s)",
                       list_names (record, list));
  r = field_passphrase (data, "passphrase", ENCODING_TEXT, ret, why);
  return reason_context (r, why, "in \"data\"");
}

int
layout_passphrase (const struct layout *layout, json_t *record,
                   struct secret **ret, struct reason *why)
{
  switch (layout->kind) {
  case LAYOUT_CASTELLAN:
    return castellan_passphrase (record, ret, why);
  case LAYOUT_CEPH_CSI:
    return ceph_csi_passphrase (record, ret, why);
  case LAYOUT_RGW:
    return field_passphrase (record, "key", ENCODING_BASE64, ret, why);
  case LAYOUT_RAW:
    return raw_passphrase (record, ret, why);
  case LAYOUT_FIELD:
    break;
  }
  return field_passphrase (record, layout->field, layout->encoding, ret, why);
}

int
layout_bytes (const struct layout *layout, struct secret *bytes,
              struct secret **ret, struct reason *why)
{
  CLEANUP_SECRET struct secret *in = bytes;

  if (layout->kind == LAYOUT_RAW) {
    *ret = TAKE_PTR (in);
    return 0;
  }
  if (layout->kind != LAYOUT_CASTELLAN)
    return reason_set (why, EINVAL,
                       "the server stores bytes, not a record: the layout "
                       "must be raw or castellan");
  *ret = hexlify (in);
  return *ret ? 0 : reason_no_memory (why);
}
