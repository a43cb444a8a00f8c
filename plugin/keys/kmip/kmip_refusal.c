/* SPDX-License-Identifier: BSD-3-Clause */

/* What the failures that a KMIP server reports mean for a key.
 *
 * KMIP specification 1.4, section 9.1.3.2.29 (Result Reason) and 3.22
 * (State).
 */

#include "config.h"

#include <errno.h>
#include <string.h>

#include "kmip.h"

struct meaning {
  uint32_t reason;
  int err;
  bool again; /* a second try may go better */
  const char *name;
};

static const struct meaning meanings[] = {
  { 0x001, ENOENT, false, "Item Not Found" },
  { 0x002, EBADMSG, false, "Response Too Large" },
  { 0x003, EACCES, false, "Authentication Not Successful" },
  { 0x004, EINVAL, false, "Invalid Message" },
  { 0x005, EINVAL, false, "Operation Not Supported" },
  { 0x006, EINVAL, false, "Missing Data" },
  { 0x007, EINVAL, false, "Invalid Field" },
  { 0x008, EINVAL, false, "Feature Not Supported" },
  { 0x009, EAGAIN, true, "Operation Canceled By Requester" },
  /* Of Decrypt: not what this key has encrypted.  Damaged or denied. */
  { 0x00a, EACCES, false, "Cryptographic Failure" },
  { 0x00b, EINVAL, false, "Illegal Operation" },
  { 0x00c, EACCES, false, "Permission Denied" },
  { 0x00d, ENOENT, false, "Object Archived" },
  { 0x00e, EINVAL, false, "Index Out of Bounds" },
  { 0x00f, EINVAL, false, "Application Namespace Not Supported" },
  { 0x010, EINVAL, false, "Key Format Type Not Supported" },
  { 0x011, EINVAL, false, "Key Compression Type Not Supported" },
  { 0x012, EINVAL, false, "Encoding Option Error" },
  { 0x013, ENOENT, false, "Key Value Not Present" },
  { 0x014, EACCES, false, "Attestation Required" },
  { 0x015, EACCES, false, "Attestation Failed" },
  { 0x016, EACCES, false, "Sensitive" },
  { 0x017, EACCES, false, "Not Extractable" },
  /* Also what PyKMIP says of a tag of GCM that does not fit. */
  { 0x100, EAGAIN, true, "General Failure" },
};

/* What the reader of the sentence can do. */
static const char *
advice (uint32_t reason, enum kmip_operation operation)
{
  switch (reason) {
  case 0x001:
    return ": there is no such object, or it was destroyed";
  case 0x004:
    return ": a \"version\" in the profile may help";
  case 0x00a:
    return ": this key did not encrypt that, or it was changed";
  case 0x00c:
    return ": it belongs to another user, or its use is restricted";
  case 0x100:
    return operation == KMIP_DECRYPT
               ? ": a server fault, or a changed ciphertext"
               : "";
  default:
    return "";
  }
}

int
kmip_reply_refusal (const struct kmip_reply *reply,
                    enum kmip_operation operation, const char *what,
                    const char *address, bool *again, struct reason *why)
{
  static const struct meaning unknown = { 0, EAGAIN, false, "unknown reason" };
  static const char *const operations[] = {
    [KMIP_LOCATE] = "Locate",
    [KMIP_GET] = "Get",
    [KMIP_GET_ATTRIBUTES] = "Get Attributes",
    [KMIP_DECRYPT] = "Decrypt",
  };
  const size_t n = sizeof meanings / sizeof meanings[0];
  const struct meaning *m = &unknown;
  char buf[REASON_NAME_MAX];

  reason_name (buf, what);
  for (size_t i = 0; i < n; i++)
    if (meanings[i].reason == reply->reason)
      m = &meanings[i];
  *again = m->again;
  return reason_set (why, m->err,
                     "%.256s refuses %s for the object " REASON_QUOTED
                     ": %s (reason %u%s%s)%s",
                     address, operations[operation], reason_quoted (buf),
                     m->name, (unsigned)reply->reason,
                     reply->text[0] ? ": " : "", reply->text,
                     advice (reply->reason, operation));
}

int
kmip_state_refusal (uint32_t state, const char *what, const char *address,
                    struct reason *why)
{
  static const char *const names[] = {
    NULL,
    "Pre-Active",
    "Active",
    "Deactivated",
    "Compromised",
    "Destroyed",
    "Destroyed Compromised",
  };
  enum { active = 2, destroyed = 5, last = 6 };
  char buf[REASON_NAME_MAX];

  if (state == active)
    return 0;
  reason_name (buf, what);
  if (state == 0 || state > last)
    return reason_set (why, EBADMSG,
                       "%.256s says that the object " REASON_QUOTED
                       " is in the unknown state %u",
                       address, reason_quoted (buf), (unsigned)state);
  if (state >= destroyed)
    return reason_set (why, ENOENT,
                       "the object " REASON_QUOTED
                       " at %.256s is %s: it cannot be restored",
                       reason_quoted (buf), address, names[state]);
  return reason_set (why, EACCES,
                     "the object " REASON_QUOTED
                     " at %.256s is %s: only Active objects may be used",
                     reason_quoted (buf), address, names[state]);
}
