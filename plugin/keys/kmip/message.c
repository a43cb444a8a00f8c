/* SPDX-License-Identifier: BSD-3-Clause */

/* Requests and replies: KMIP specification 1.4, sections 4 (operations),
 * 6 (message contents), 7 (message format) and 9.1.3 (values).
 *
 * What an answer means is decided by its Result Reason.  Servers' texts
 * differ, and PyKMIP's says "could not locate" for what it denies.
 */

#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "json.h"
#include "kmip.h"

enum {
  TAG_ATTRIBUTE = 0x420008,
  TAG_ATTRIBUTE_NAME = 0x42000a,
  TAG_ATTRIBUTE_VALUE = 0x42000b,
  TAG_BATCH_COUNT = 0x42000d,
  TAG_BATCH_ITEM = 0x42000f,
  TAG_BLOCK_CIPHER_MODE = 0x420011,
  TAG_CRYPTOGRAPHIC_ALGORITHM = 0x420028,
  TAG_CRYPTOGRAPHIC_PARAMETERS = 0x42002b,
  TAG_IV = 0x42003d,
  TAG_KEY_BLOCK = 0x420040,
  TAG_KEY_FORMAT_TYPE = 0x420042,
  TAG_KEY_MATERIAL = 0x420043,
  TAG_KEY_VALUE = 0x420045,
  TAG_KEY_WRAPPING_DATA = 0x420046,
  TAG_MAXIMUM_ITEMS = 0x42004f,
  TAG_MAXIMUM_RESPONSE_SIZE = 0x420050,
  TAG_NAME_TYPE = 0x420054,
  TAG_NAME_VALUE = 0x420055,
  TAG_OBJECT_TYPE = 0x420057,
  TAG_OPERATION = 0x42005c,
  TAG_PADDING_METHOD = 0x42005f,
  TAG_PROTOCOL_VERSION = 0x420069,
  TAG_VERSION_MAJOR = 0x42006a,
  TAG_VERSION_MINOR = 0x42006b,
  TAG_REQUEST_HEADER = 0x420077,
  TAG_REQUEST_MESSAGE = 0x420078,
  TAG_REQUEST_PAYLOAD = 0x420079,
  TAG_RESPONSE_HEADER = 0x42007a,
  TAG_RESPONSE_MESSAGE = 0x42007b,
  TAG_RESPONSE_PAYLOAD = 0x42007c,
  TAG_RESULT_MESSAGE = 0x42007d,
  TAG_RESULT_REASON = 0x42007e,
  TAG_RESULT_STATUS = 0x42007f,
  TAG_SECRET_DATA = 0x420085,
  TAG_SYMMETRIC_KEY = 0x42008f,
  TAG_UNIQUE_IDENTIFIER = 0x420094,
  TAG_DATA = 0x4200c2,
  TAG_TAG_LENGTH = 0x4200ce,
  TAG_AUTHENTICATED_TAG = 0x4200ff,
};

enum { STATUS_SUCCESS = 0, STATUS_FAILED = 1 };
enum { MODE_CBC = 1, MODE_GCM = 9 };
enum { PADDING_PKCS5 = 3 };
enum { ALGORITHM_AES = 3 };
enum { NAME_TEXT = 1 };
enum { OBJECT_SYMMETRIC_KEY = 2, OBJECT_SECRET_DATA = 7 };
enum { FORMAT_RAW = 1, FORMAT_OPAQUE = 2 };
enum { REASON_INVALID_MESSAGE = 4 };

/* More than a reference of KEY_REFERENCE_MAX bytes can need. */
#define REQUEST_MAX 8192

/* ---- requests ---- */

static void
put_decrypt (struct ttlv_writer *w, const struct kmip_request *request)
{
  const struct kmip_wrapped *wrapped = request->wrapped;

  ttlv_put_text (w, TAG_UNIQUE_IDENTIFIER, request->object);
  ttlv_open (w, TAG_CRYPTOGRAPHIC_PARAMETERS);
  ttlv_put_enumeration (w, TAG_BLOCK_CIPHER_MODE,
                        wrapped->gcm ? MODE_GCM : MODE_CBC);
  if (!wrapped->gcm)
    ttlv_put_enumeration (w, TAG_PADDING_METHOD, PADDING_PKCS5);
  ttlv_put_enumeration (w, TAG_CRYPTOGRAPHIC_ALGORITHM, ALGORITHM_AES);
  if (wrapped->gcm)
    ttlv_put_integer (w, TAG_TAG_LENGTH, wrapped->tag->length);
  ttlv_close (w);
  ttlv_put_bytes (w, TAG_DATA, wrapped->data->bytes, wrapped->data->length);
  ttlv_put_bytes (w, TAG_IV, wrapped->iv->bytes, wrapped->iv->length);
  if (wrapped->gcm)
    ttlv_put_bytes (w, TAG_AUTHENTICATED_TAG, wrapped->tag->bytes,
                    wrapped->tag->length);
}

static void
put_payload (struct ttlv_writer *w, const struct kmip_request *request)
{
  switch (request->operation) {
  case KMIP_LOCATE:
    /* Two tell "several". */
    ttlv_put_integer (w, TAG_MAXIMUM_ITEMS, 2);
    ttlv_open (w, TAG_ATTRIBUTE);
    ttlv_put_text (w, TAG_ATTRIBUTE_NAME, "Name");
    ttlv_open (w, TAG_ATTRIBUTE_VALUE);
    ttlv_put_text (w, TAG_NAME_VALUE, request->object);
    ttlv_put_enumeration (w, TAG_NAME_TYPE, NAME_TEXT);
    ttlv_close (w);
    ttlv_close (w);
    break;
  case KMIP_GET:
    ttlv_put_text (w, TAG_UNIQUE_IDENTIFIER, request->object);
    break;
  case KMIP_GET_ATTRIBUTES:
    ttlv_put_text (w, TAG_UNIQUE_IDENTIFIER, request->object);
    ttlv_put_text (w, TAG_ATTRIBUTE_NAME, "State");
    break;
  case KMIP_DECRYPT:
    put_decrypt (w, request);
    break;
  }
}

int
kmip_message_write (const struct kmip_request *request, unsigned minor,
                    struct secret **ret, struct reason *why)
{
  CLEANUP_SECRET struct secret *out = secret_new (REQUEST_MAX);
  struct ttlv_writer w = { .out = out };

  if (!out)
    return reason_no_memory (why);
  ttlv_open (&w, TAG_REQUEST_MESSAGE);
  ttlv_open (&w, TAG_REQUEST_HEADER);
  ttlv_open (&w, TAG_PROTOCOL_VERSION);
  ttlv_put_integer (&w, TAG_VERSION_MAJOR, 1);
  ttlv_put_integer (&w, TAG_VERSION_MINOR, minor);
  ttlv_close (&w);
  ttlv_put_integer (&w, TAG_MAXIMUM_RESPONSE_SIZE, TTLV_MESSAGE_MAX);
  ttlv_put_integer (&w, TAG_BATCH_COUNT, 1);
  ttlv_close (&w);
  ttlv_open (&w, TAG_BATCH_ITEM);
  ttlv_put_enumeration (&w, TAG_OPERATION, request->operation);
  ttlv_open (&w, TAG_REQUEST_PAYLOAD);
  put_payload (&w, request);
  ttlv_close (&w);
  ttlv_close (&w);
  ttlv_close (&w);
  if (ttlv_end_writing (&w) < 0)
    return reason_set (why, EINVAL, "the reference is too long for a request");
  *ret = TAKE_PTR (out);
  return 0;
}

/* ---- replies ---- */

static int
nonsense (struct reason *why, const char *what)
{
  return reason_set (why, EBADMSG, "the answer %s", what);
}

/* ttlv_find, and a sentence; NAME is what the item is called. */
static int
get (struct ttlv_cursor from, uint32_t tag, enum ttlv_type type,
     const char *name, struct ttlv_item *ret, struct reason *why)
{
  const int r = ttlv_find (from, tag, type, ret);

  if (r == 0)
    return 0;
  return reason_set (why, EBADMSG,
                     r == -ENOENT
                         ? "the answer has no %s"
                         : "the answer has two of %s, or one of the wrong type",
                     name);
}

/* Absent is all right: then *RET is 0. */
static int
get_enumeration (struct ttlv_cursor from, uint32_t tag, const char *name,
                 uint32_t *ret, struct reason *why)
{
  struct ttlv_item item;
  int r;

  *ret = 0;
  if (ttlv_find (from, tag, TTLV_ENUMERATION, &item) == -ENOENT)
    return 0;
  r = get (from, tag, TTLV_ENUMERATION, name, &item, why);
  if (r == 0)
    *ret = ttlv_number (&item);
  return r;
}

static int
read_header (struct ttlv_cursor message, uint32_t *major, struct reason *why)
{
  struct ttlv_item header, version, item;
  int r;

  r = get (message, TAG_RESPONSE_HEADER, TTLV_STRUCTURE, "Response Header",
           &header, why);
  if (r == 0)
    r = get (ttlv_enter (&header), TAG_PROTOCOL_VERSION, TTLV_STRUCTURE,
             "Protocol Version", &version, why);
  if (r == 0)
    r = get (ttlv_enter (&version), TAG_VERSION_MAJOR, TTLV_INTEGER,
             "Protocol Version Major", &item, why);
  if (r < 0)
    return r;
  *major = ttlv_number (&item);
  r = get (ttlv_enter (&header), TAG_BATCH_COUNT, TTLV_INTEGER, "Batch Count",
           &item, why);
  if (r == 0 && ttlv_number (&item) != 1)
    return nonsense (why, "is a batch of several");
  return r;
}

/* A failure that does not say what it is: the server's text may. */
static int
odd_failure (const struct kmip_reply *reply, const char *what,
             struct reason *why)
{
  return reason_set (why, EBADMSG, "the answer is %s%s%s", what,
                     reply->text[0] ? ": " : "", reply->text);
}

static int
read_batch_item (struct ttlv_cursor item, enum kmip_operation operation,
                 struct kmip_reply *reply, struct reason *why)
{
  struct ttlv_item status, text, payload;
  uint32_t echoed = 0;
  int r;

  r = get (item, TAG_RESULT_STATUS, TTLV_ENUMERATION, "Result Status", &status,
           why);
  if (r == 0)
    r = get_enumeration (item, TAG_OPERATION, "Operation", &echoed, why);
  if (r == 0)
    r = get_enumeration (item, TAG_RESULT_REASON, "Result Reason",
                         &reply->reason, why);
  if (r < 0)
    return r;
  reply->success = ttlv_number (&status) == STATUS_SUCCESS;
  if (!reply->success &&
      ttlv_find (item, TAG_RESULT_MESSAGE, TTLV_TEXT, &text) == 0)
    snprintf (reply->text, sizeof reply->text, "%.*s", (int)text.length,
              (const char *)text.value);
  if (!reply->success && ttlv_number (&status) != STATUS_FAILED)
    return odd_failure (reply, "neither a success nor a failure", why);
  if (reply->success ? echoed != operation : echoed && echoed != operation)
    return nonsense (why, "answers another question");
  if (!reply->success) {
    reply->misunderstood = !echoed && reply->reason == REASON_INVALID_MESSAGE;
    return reply->reason
               ? 0
               : odd_failure (reply, "a failure without a reason", why);
  }
  r = ttlv_find (item, TAG_RESPONSE_PAYLOAD, TTLV_STRUCTURE, &payload);
  if (r == -EBADMSG)
    return nonsense (why, "has two payloads, or one of the wrong type");
  if (r == 0)
    reply->payload = ttlv_enter (&payload);
  return 0;
}

int
kmip_message_read (const struct secret *message, enum kmip_operation operation,
                   struct kmip_reply *ret, struct reason *why)
{
  struct kmip_reply reply = { .success = false };
  struct ttlv_item outer, item;
  struct ttlv_cursor inner;
  uint32_t major;
  int r;

  r = ttlv_check (message->bytes, message->length, why);
  r = reason_context (r, why, "the answer is not KMIP");
  if (r < 0)
    return r;
  reply.payload = ttlv_begin_reading (message->bytes, 0);
  r = get (ttlv_begin_reading (message->bytes, message->length),
           TAG_RESPONSE_MESSAGE, TTLV_STRUCTURE, "Response Message", &outer,
           why);
  if (r < 0)
    return r;
  inner = ttlv_enter (&outer);
  r = read_header (inner, &major, why);
  if (r == 0)
    r = get (inner, TAG_BATCH_ITEM, TTLV_STRUCTURE, "Batch Item", &item, why);
  if (r == 0)
    r = read_batch_item (ttlv_enter (&item), operation, &reply, why);
  if (r == 0 && reply.success && major != 1)
    r = nonsense (why, "is not KMIP 1");
  if (r == 0)
    *ret = reply;
  return r;
}

int
kmip_check_id (const char *text, const char *what, struct reason *why)
{
  json_t *utf8 CLEANUP_JSON = json_string (text);
  const size_t n = strlen (text);

  if (text_has_controls (text, n))
    return reason_set (why, EINVAL, "%s holds control characters", what);
  if (n == 0 || n > KMIP_ID_MAX)
    return reason_set (why, EINVAL, "%s must have 1 to %d bytes", what,
                       KMIP_ID_MAX);
  if (!utf8)
    return reason_set (why, EINVAL, "%s is not UTF-8", what);
  return 0;
}

/* ---- payloads ---- */

int
kmip_reply_located (const struct kmip_reply *reply, char ret[KMIP_ID_MAX + 1],
                    struct reason *why)
{
  struct ttlv_cursor payload = reply->payload;
  struct ttlv_item item, found;
  unsigned n = 0;

  while (ttlv_next (&payload, &item)) {
    if (item.tag != TAG_UNIQUE_IDENTIFIER)
      continue;
    if (item.type != TTLV_TEXT)
      return nonsense (why, "has an identifier of the wrong type");
    found = item;
    n++;
  }
  if (n == 0)
    return reason_set (why, ENOENT, "no object has the name");
  if (n > 1)
    return reason_set (why, EINVAL, "two objects share the name");
  /* What will stand in sentences and in the next request. */
  if (found.length == 0 || found.length > KMIP_ID_MAX)
    return nonsense (why, "has an identifier that is empty or too long");
  if (text_has_controls (found.value, found.length))
    return nonsense (why, "has an identifier with a control character");
  memcpy (ret, found.value, found.length);
  ret[found.length] = '\0';
  return 0;
}

static int
same_id (const struct kmip_reply *reply, const char *ident, struct reason *why)
{
  struct ttlv_item item;
  int r = get (reply->payload, TAG_UNIQUE_IDENTIFIER, TTLV_TEXT,
               "Unique Identifier", &item, why);

  if (r == 0 && !ttlv_equals (&item, ident))
    return nonsense (why, "is about another object");
  return r;
}

/* One of the attributes of a payload: the State, or one that nobody asked
 * for.
 */
static int
read_attribute (const struct ttlv_item *attribute, bool *found, uint32_t *ret,
                struct reason *why)
{
  struct ttlv_cursor inner;
  struct ttlv_item item;
  int r;

  if (attribute->type != TTLV_STRUCTURE)
    return nonsense (why, "has an attribute of the wrong type");
  inner = ttlv_enter (attribute);
  r = get (inner, TAG_ATTRIBUTE_NAME, TTLV_TEXT, "Attribute Name", &item, why);
  if (r < 0 || !ttlv_equals (&item, "State"))
    return r;
  if (*found)
    return nonsense (why, "has two States");
  *found = true;
  r = get (inner, TAG_ATTRIBUTE_VALUE, TTLV_ENUMERATION, "Attribute Value",
           &item, why);
  if (r == 0)
    *ret = ttlv_number (&item);
  return r;
}

int
kmip_reply_state (const struct kmip_reply *reply, const char *ident,
                  uint32_t *ret, struct reason *why)
{
  struct ttlv_cursor payload = reply->payload;
  struct ttlv_item item;
  bool found = false;
  int r = same_id (reply, ident, why);

  while (r == 0 && ttlv_next (&payload, &item))
    if (item.tag == TAG_ATTRIBUTE)
      r = read_attribute (&item, &found, ret, why);
  return r == 0 && !found ? nonsense (why, "has no State") : r;
}

static int
copy_bytes (const struct ttlv_item *item, const char *name, struct secret **ret,
            struct reason *why)
{
  if (item->length == 0 || item->length > SECRET_PASSPHRASE_MAX)
    return reason_set (why, EBADMSG, "the %s is empty or too long", name);
  return text_copy_secret (ret, item->value, item->length, why);
}

static int
read_key_block (struct ttlv_cursor block, struct secret **ret,
                struct reason *why)
{
  struct ttlv_item format, value, material;
  int r;

  r = ttlv_find (block, TAG_KEY_WRAPPING_DATA, TTLV_STRUCTURE, &value);
  if (r != -ENOENT)
    return reason_set (why, EBADMSG,
                       "the server wraps the key with another key: it must "
                       "send keys unwrapped");
  r = get (block, TAG_KEY_FORMAT_TYPE, TTLV_ENUMERATION, "Key Format Type",
           &format, why);
  if (r < 0)
    return r;
  if (ttlv_number (&format) != FORMAT_RAW &&
      ttlv_number (&format) != FORMAT_OPAQUE)
    return reason_set (why, EBADMSG,
                       "the key comes in the format %u: only Raw (1) and "
                       "Opaque (2) can be used",
                       (unsigned)ttlv_number (&format));
  r = get (block, TAG_KEY_VALUE, TTLV_STRUCTURE, "Key Value", &value, why);
  if (r == 0)
    r = get (ttlv_enter (&value), TAG_KEY_MATERIAL, TTLV_BYTES, "Key Material",
             &material, why);
  return r < 0 ? r : copy_bytes (&material, "key", ret, why);
}

int
kmip_reply_key (const struct kmip_reply *reply, const char *ident,
                bool *passphrase, struct secret **ret, struct reason *why)
{
  struct ttlv_item type, object, block;
  uint32_t tag;
  int r;

  r = same_id (reply, ident, why);
  if (r == 0)
    r = get (reply->payload, TAG_OBJECT_TYPE, TTLV_ENUMERATION, "Object Type",
             &type, why);
  if (r < 0)
    return r;
  switch (ttlv_number (&type)) {
  case OBJECT_SYMMETRIC_KEY:
    tag = TAG_SYMMETRIC_KEY;
    break;
  case OBJECT_SECRET_DATA:
    tag = TAG_SECRET_DATA;
    break;
  default:
    return reason_set (why, EBADMSG,
                       "the object is of type %u: only a Symmetric Key (2) "
                       "and Secret Data (7) open a volume",
                       (unsigned)ttlv_number (&type));
  }
  r = get (reply->payload, tag, TTLV_STRUCTURE, "object of its type", &object,
           why);
  if (r == 0)
    r = get (ttlv_enter (&object), TAG_KEY_BLOCK, TTLV_STRUCTURE, "Key Block",
             &block, why);
  if (r == 0)
    r = read_key_block (ttlv_enter (&block), ret, why);
  if (r == 0)
    *passphrase = tag == TAG_SECRET_DATA;
  return r;
}

int
kmip_reply_data (const struct kmip_reply *reply, const char *ident,
                 struct secret **ret, struct reason *why)
{
  struct ttlv_item data;
  int r;

  r = same_id (reply, ident, why);
  if (r == 0)
    r = get (reply->payload, TAG_DATA, TTLV_BYTES, "Data", &data, why);
  return r < 0 ? r : copy_bytes (&data, "decrypted passphrase", ret, why);
}
