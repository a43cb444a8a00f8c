/* SPDX-License-Identifier: BSD-3-Clause */

#include "config.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "recheck.h"

#define SECOND INT64_C (1000)
/* Where a monotonic clock happens to be does not matter. */
#define ORIGIN (INT64_C (123456789) * SECOND)

static const struct recheck_rules stopping = {
  .every_ms = 300 * SECOND,
  .grace_ms = 3600 * SECOND,
};
static const struct recheck_rules pausing = {
  .every_ms = 300 * SECOND,
  .grace_ms = 3600 * SECOND,
  .pause = true,
};
static const struct recheck_rules hasty = {
  .every_ms = 300 * SECOND,
  .grace_ms = 0,
};
static const struct recheck_rules hasty_pausing = {
  .every_ms = 300 * SECOND,
  .grace_ms = 0,
  .pause = true,
};

/* A question at AT seconds, answered TOOK seconds later. */
struct answer {
  int at, took, err;
  enum recheck_step expected;
};

#define ANSWERS_MAX 8
struct story {
  const char *name;
  const struct recheck_rules *rules;
  struct answer answers[ANSWERS_MAX]; /* AT 0 ends them */
};

static const struct story stories[] = {
  { "allowed for ever",
    &stopping,
    { { 300, 0, 0, RECHECK_GO_ON },
      { 600, 1, 0, RECHECK_GO_ON },
      { 90000, 0, 0, RECHECK_GO_ON } } },
  { "denied", &stopping, { { 300, 0, -EACCES, RECHECK_STOP } } },
  { "gone", &stopping, { { 300, 0, -ENOENT, RECHECK_STOP } } },
  { "denied, though pausing", &pausing, { { 300, 0, -EACCES, RECHECK_STOP } } },
  { "one warning in an outage",
    &stopping,
    { { 300, 0, -EAGAIN, RECHECK_WARN },
      { 301, 0, -EAGAIN, RECHECK_GO_ON },
      { 303, 0, 0, RECHECK_WORKS },
      { 600, 0, 0, RECHECK_GO_ON },
      { 900, 0, -EAGAIN, RECHECK_WARN } } },
  { "denied in an outage",
    &stopping,
    { { 300, 0, -EAGAIN, RECHECK_WARN }, { 301, 0, -EACCES, RECHECK_STOP } } },
  { "nonsense, configuration, limits and the rest say nothing",
    &stopping,
    { { 300, 0, -EBADMSG, RECHECK_WARN },
      { 301, 0, -EINVAL, RECHECK_GO_ON },
      { 303, 10, -ETIMEDOUT, RECHECK_GO_ON },
      { 320, 0, -EPERM, RECHECK_GO_ON },
      { 330, 0, -ENOMEM, RECHECK_GO_ON },
      { 340, 0, -EKEYREJECTED, RECHECK_GO_ON },
      { 350, 0, 0, RECHECK_WORKS } } },
  { "grace counts from the first question, not its answer",
    &stopping,
    { { 300, 10, -EAGAIN, RECHECK_WARN },
      { 3899, 0, -EAGAIN, RECHECK_GO_ON },
      { 3900, 0, -EAGAIN, RECHECK_STOP } } },
  { "grace ends while a question waits",
    &stopping,
    { { 300, 0, -EAGAIN, RECHECK_WARN },
      { 3895, 10, -ETIMEDOUT, RECHECK_STOP } } },
  { "the last answer counts, however late",
    &stopping,
    { { 300, 0, -EAGAIN, RECHECK_WARN }, { 3895, 10, 0, RECHECK_WORKS } } },
  { "an answer begins a new grace",
    &stopping,
    { { 300, 0, -EAGAIN, RECHECK_WARN },
      { 3800, 0, 0, RECHECK_WORKS },
      { 4100, 0, -EAGAIN, RECHECK_WARN },
      { 7699, 0, -EAGAIN, RECHECK_GO_ON },
      { 7700, 0, -EAGAIN, RECHECK_STOP } } },
  { "stopped for hours in between: asked before anything ends",
    &stopping,
    { { 300, 0, -EAGAIN, RECHECK_WARN }, { 90000, 1, 0, RECHECK_WORKS } } },
  { "pause and resume",
    &pausing,
    { { 300, 0, -EAGAIN, RECHECK_WARN },
      { 3900, 0, -EAGAIN, RECHECK_PAUSE },
      { 3915, 0, -EAGAIN, RECHECK_GO_ON },
      { 99999, 0, -EBADMSG, RECHECK_GO_ON },
      { 100000, 0, 0, RECHECK_RESUME },
      { 100300, 0, 0, RECHECK_GO_ON },
      { 100600, 0, -EAGAIN, RECHECK_WARN } } },
  { "denied in a pause",
    &pausing,
    { { 300, 0, -EAGAIN, RECHECK_WARN },
      { 3900, 0, -EAGAIN, RECHECK_PAUSE },
      { 3915, 0, -ENOENT, RECHECK_STOP } } },
  { "no grace", &hasty, { { 300, 0, -EAGAIN, RECHECK_STOP } } },
  { "no grace, pausing",
    &hasty_pausing,
    { { 300, 0, -EAGAIN, RECHECK_PAUSE },
      { 301, 0, 0, RECHECK_RESUME },
      { 600, 0, -EAGAIN, RECHECK_PAUSE } } },
};

static void
tell (const struct story *story, uint32_t random)
{
  struct recheck_state state;

  recheck_reset (&state, story->rules, ORIGIN, random);
  for (size_t i = 0; i < ANSWERS_MAX && story->answers[i].at > 0; i++) {
    const struct answer *a = &story->answers[i];
    const int64_t asked = ORIGIN + a->at * SECOND;
    const enum recheck_step step = recheck_take (
        &state, story->rules, a->err, asked, asked + a->took * SECOND, random);

    if (step != a->expected)
      fail_msg ("%s, answer %zu: step %d, expected %d", story->name, i,
                (int)step, (int)a->expected);
  }
}

static void
every_story_goes_as_told (void **state)
{
  (void)state;
  for (size_t i = 0; i < sizeof stories / sizeof stories[0]; i++) {
    tell (&stories[i], 0);
    tell (&stories[i], UINT32_MAX);
  }
}

static void
questions_spread_by_a_tenth (void **unused)
{
  struct recheck_state state;
  int64_t least = INT64_MAX, most = 0;

  (void)unused;
  for (uint32_t n = 0; n < 100000; n++) {
    int64_t ms;

    recheck_reset (&state, &stopping, ORIGIN, n * 2654435761u);
    ms = state.next_ms - ORIGIN;
    assert_in_range (ms, 270 * SECOND, 330 * SECOND);
    least = ms < least ? ms : least;
    most = ms > most ? ms : most;
  }
  assert_true (least < 271 * SECOND && most > 329 * SECOND);
}

static void
an_outage_is_looked_at_more_and_more_seldom_but_often_enough (void **unused)
{
  struct recheck_state state;
  int64_t now = ORIGIN, last = 0;

  (void)unused;
  recheck_reset (&state, &stopping, now, 0);
  for (int i = 0; i < 100; i++) {
    int64_t ms;

    now = state.next_ms;
    recheck_take (&state, &stopping, -EAGAIN, now, now, 1u << 31);
    ms = state.next_ms - now;
    assert_in_range (ms, 500, 19 * SECOND);
    assert_true (ms >= last);
    last = ms;
  }
  assert_true (last >= 10 * SECOND);
}

static void
an_outage_is_never_asked_about_less_often_than_health (void **unused)
{
  static const struct recheck_rules rules = { .every_ms = 2 * SECOND,
                                              .grace_ms = 3600 * SECOND };
  struct recheck_state state;
  int64_t now = ORIGIN;

  (void)unused;
  recheck_reset (&state, &rules, now, 0);
  for (int i = 0; i < 100; i++) {
    now = state.next_ms;
    recheck_take (&state, &rules, -EAGAIN, now, now, UINT32_MAX);
    assert_in_range (state.next_ms - now, 1, 2500);
  }
}

static void
the_last_question_is_asked_when_grace_ends (void **unused)
{
  static const uint32_t any[] = { 0, 1u << 31, UINT32_MAX };

  (void)unused;
  for (size_t i = 0; i < sizeof any / sizeof any[0]; i++) {
    struct recheck_state state;
    enum recheck_step step = RECHECK_WARN;
    int64_t first, now = 0;

    recheck_reset (&state, &stopping, ORIGIN, any[i]);
    first = state.next_ms;
    while (step == RECHECK_WARN || step == RECHECK_GO_ON) {
      now = state.next_ms;
      step = recheck_take (&state, &stopping, -EAGAIN, now, now, any[i]);
    }
    assert_int_equal (step, RECHECK_STOP);
    assert_int_equal (now - first, stopping.grace_ms);
  }
}

/* --- the thread --- */

struct scene {
  struct recheck *recheck;
  atomic_int asked, answer, steps, last;
  atomic_bool hang, cancelled;
};

static int
scene_check (void *opaque, const struct deadline *deadline, struct reason *why)
{
  struct scene *scene = opaque;

  atomic_fetch_add (&scene->asked, 1);
  if (atomic_load (&scene->hang)) {
    if (deadline_sleep_ms (deadline, 20 * SECOND) == -ESHUTDOWN)
      atomic_store (&scene->cancelled, true);
    return reason_set (why, ETIMEDOUT, "no answer");
  }
  return atomic_load (&scene->answer) == 0
             ? 0
             : reason_set (why, -atomic_load (&scene->answer), "as told");
}

static void
scene_step (void *opaque, enum recheck_step step, int err,
            const struct reason *why)
{
  struct scene *scene = opaque;

  (void)err;
  assert_non_null (why);
  atomic_store (&scene->last, step);
  atomic_fetch_add (&scene->steps, 1);
}

static void
await (atomic_int *counter, int at_least)
{
  const struct deadline limit = deadline_in_ms (10 * SECOND, NULL);

  while (atomic_load (counter) < at_least)
    if (deadline_sleep_ms (&limit, 5) < 0)
      fail_msg ("%d is not yet %d", atomic_load (counter), at_least);
}

static void
begin_scene (struct scene *scene, bool hang)
{
  const struct recheck_params params = {
    .rules = { .every_ms = 20, .grace_ms = 3600 * SECOND },
    .check = scene_check,
    .step = scene_step,
    .opaque = scene,
  };

  memset (scene, 0, sizeof *scene);
  atomic_store (&scene->hang, hang);
  assert_int_equal (recheck_start (&params, &scene->recheck), 0);
}

static void
end_scene (struct scene *scene)
{
  const struct deadline limit = deadline_in_ms (5 * SECOND, NULL);

  assert_int_equal (recheck_finish (scene->recheck, &limit), 0);
}

static void
thread_asks_between_begin_and_end_only (void **state)
{
  const struct deadline limit = deadline_in_ms (20 * SECOND, NULL);
  struct scene scene;
  int asked;

  (void)state;
  begin_scene (&scene, false);
  deadline_sleep_ms (&(struct deadline){ .end_ms = INT64_MAX }, 100);
  assert_int_equal (atomic_load (&scene.asked), 0);
  recheck_begin (scene.recheck);
  await (&scene.asked, 3);
  recheck_end (scene.recheck);
  assert_int_equal (recheck_settle (scene.recheck, &limit), 0);
  asked = atomic_load (&scene.asked);
  deadline_sleep_ms (&(struct deadline){ .end_ms = INT64_MAX }, 200);
  assert_int_equal (atomic_load (&scene.asked), asked);
  assert_int_equal (atomic_load (&scene.steps), 0);
  end_scene (&scene);
}

static void
thread_tells_steps_and_stops_once (void **state)
{
  struct scene scene;

  (void)state;
  begin_scene (&scene, false);
  atomic_store (&scene.answer, -EAGAIN);
  recheck_begin (scene.recheck);
  await (&scene.steps, 1);
  assert_int_equal (atomic_load (&scene.last), RECHECK_WARN);
  atomic_store (&scene.answer, -EACCES);
  await (&scene.steps, 2);
  assert_int_equal (atomic_load (&scene.last), RECHECK_STOP);
  deadline_sleep_ms (&(struct deadline){ .end_ms = INT64_MAX }, 200);
  assert_int_equal (atomic_load (&scene.steps), 2);
  /* A new volume begins anew. */
  atomic_store (&scene.answer, 0);
  atomic_store (&scene.asked, 0);
  recheck_begin (scene.recheck);
  await (&scene.asked, 2);
  assert_int_equal (atomic_load (&scene.steps), 2);
  end_scene (&scene);
}

static void
question_that_hangs_is_cancelled_and_its_answer_ignored (void **state)
{
  const struct deadline limit = deadline_in_ms (5 * SECOND, NULL);
  struct scene scene;
  int64_t begin;

  (void)state;
  begin_scene (&scene, true);
  recheck_begin (scene.recheck);
  await (&scene.asked, 1);
  begin = monotonic_ms ();
  recheck_end (scene.recheck);
  assert_true (monotonic_ms () - begin < 4 * SECOND);
  assert_int_equal (recheck_settle (scene.recheck, &limit), 0);
  assert_true (atomic_load (&scene.cancelled));
  end_scene (&scene);
  assert_true (monotonic_ms () - begin < 4 * SECOND);
  assert_true (atomic_load (&scene.cancelled));
  assert_int_equal (atomic_load (&scene.steps), 0);
}

/* While there is an answer, all of grace is left. */
static void
an_outage_shows_in_the_age_of_the_answer_and_in_grace (void **state)
{
  struct recheck_status s, later;
  struct scene scene;

  (void)state;
  recheck_status (NULL, &s);
  assert_false (s.active);
  begin_scene (&scene, false);
  recheck_status (scene.recheck, &s);
  assert_false (s.active);
  recheck_begin (scene.recheck);
  await (&scene.asked, 2);
  recheck_status (scene.recheck, &s);
  assert_true (s.active);
  assert_int_equal (s.grace_ms, 3600 * SECOND);
  atomic_store (&scene.answer, -EAGAIN);
  await (&scene.steps, 1);
  recheck_status (scene.recheck, &s);
  deadline_sleep_ms (&(struct deadline){ .end_ms = INT64_MAX }, 30);
  recheck_status (scene.recheck, &later);
  assert_true (later.grace_ms <= s.grace_ms - 30);
  assert_true (later.confirmed_ms >= s.confirmed_ms + 30);
  atomic_store (&scene.answer, 0);
  await (&scene.steps, 2);
  recheck_status (scene.recheck, &s);
  assert_int_equal (s.grace_ms, 3600 * SECOND);
  recheck_end (scene.recheck);
  recheck_status (scene.recheck, &s);
  assert_false (s.active);
  end_scene (&scene);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (every_story_goes_as_told),
    cmocka_unit_test (questions_spread_by_a_tenth),
    cmocka_unit_test (
        an_outage_is_looked_at_more_and_more_seldom_but_often_enough),
    cmocka_unit_test (an_outage_is_never_asked_about_less_often_than_health),
    cmocka_unit_test (the_last_question_is_asked_when_grace_ends),
    cmocka_unit_test (thread_asks_between_begin_and_end_only),
    cmocka_unit_test (thread_tells_steps_and_stops_once),
    cmocka_unit_test (question_that_hangs_is_cancelled_and_its_answer_ignored),
    cmocka_unit_test (an_outage_shows_in_the_age_of_the_answer_and_in_grace),
  };

  return cmocka_run_group_tests (tests, NULL, NULL);
}
