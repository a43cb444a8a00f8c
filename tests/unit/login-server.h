/* SPDX-License-Identifier: BSD-3-Clause */

/* Logins to a server on a loopback socket that answers as each test says:
 * for what a real one cannot be made to do at the right moment.
 */

#ifndef RBDCRYPT_TEST_LOGIN_SERVER_H
#define RBDCRYPT_TEST_LOGIN_SERVER_H

#include "../../plugin/keys/openbao/bao_login.h"

#define ERROR(TEXT) "{\"errors\":[\"" TEXT "\"]}"
#define BARE "{\"errors\":[\"permission denied\"]}"
#define POLICY "{\"errors\":[\"1 error occurred:\\n\\t* permission denied\"]}"
#define GRANT(NAME)                                                            \
  "{\"auth\":{\"client_token\":\"" NAME "\",\"lease_duration\":600,"           \
  "\"renewable\":true,\"num_uses\":0,\"token_type\":\"service\"}}"

/* What is answered to requests whose head holds PART, in order; TIMES 0:
 * always.  Status 0: hang up; below: BODY alone, without HTTP.
 */
struct line {
  const char *part;
  int status;
  const char *body;
  int times;
  int delay_ms;
  int asked; /* how often it was */
};

#define ALWAYS(PART, STATUS, BODY) LATE (0, PART, STATUS, BODY)
#define LATE(MS, PART, STATUS, BODY)                                           \
  {                                                                            \
    .part = PART, .status = STATUS, .body = BODY, .delay_ms = MS               \
  }
#define ONCE(PART, STATUS, BODY)                                               \
  {                                                                            \
    .part = PART, .status = STATUS, .body = BODY, .times = 1                   \
  }
#define END                                                                    \
  {                                                                            \
    .part = NULL                                                               \
  }

extern struct openbao login_bao;
extern struct bao_login login;
extern struct line *script; /* END is the last */
extern char last[8192];     /* request */

#define APPROLE                                                                \
  "{\"method\":\"approle\",\"role_id\":\"role\",\"secret_id_file\":\"%s\"}"
#define WRAPPED                                                                \
  "{\"method\":\"approle\",\"role_id\":\"role\","                              \
  "\"wrapped_secret_id_file\":\"%s\"}"
#define JWT "{\"method\":\"jwt\",\"role\":\"r\",\"jwt_file\":\"%s\"}"
#define KUBERNETES                                                             \
  "{\"method\":\"kubernetes\",\"role\":\"r\",\"jwt_file\":\"%s\"}"
#define TOKEN_FILE "{\"method\":\"token_file\",\"path\":\"%s\"}"
/* {"exp":9999999999} */
#define HEALTHY "e30.eyJleHAiOjk5OTk5OTk5OTl9.c2ln"

/* The file that %s of the methods stands for. */
extern const char *file_path (void);
extern void write_file (const char *text);
extern void remove_file (void);

/* Open LOGIN with the member "auth" that FORMAT is, after TEXT was
 * written to the file.
 */
extern void begin (const char *format, const char *text);

extern struct key_question question (void);

/* Ask for the key: the result, and the status of its answer. */
extern int ask (struct key_question *q, long *status, struct reason *why);

/* That must end in -ERR, or in STATUS. */
extern void asks (int err, long status);

extern int login_server_up (void **state);
extern int login_server_down (void **state);

#endif /* RBDCRYPT_TEST_LOGIN_SERVER_H */
