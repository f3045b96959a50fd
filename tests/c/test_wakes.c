/* SPDX-License-Identifier: MIT
 *
 * Wakes that are put off (wakes.c): in a pool of more workers than CPUs, while quick messages follow one another. The
 * tasks that show it all wait for one another, so each worker has to begin. How a worker is started makes no
 * difference to it: forked ones and threads will do.
 */
#include "battery.h"

#include "internal.h"

enum { QUICK, MEET, WAIT };

typedef struct {
    uint32_t kind, n;
} request;

/* Shared with forked workers. */
static struct {
    _Atomic uint32_t met, goes_on, waiting;
} * place;

static int run_request(void *user, tercio_call *call, const tercio_chunk *chunk)
{
    request asked;
    (void)user;
    memcpy(&asked, chunk->message.data, sizeof asked);
    if (asked.kind == MEET) {
        atomic_fetch_add(&place->met, 1);
        while (atomic_load(&place->met) < asked.n && !tercio_stopping(call))
            sched_yield();
    }
    if (asked.kind == WAIT) {
        atomic_fetch_add(&place->waiting, 1);
        while (!atomic_load(&place->goes_on) && !tercio_stopping(call))
            sched_yield();
    }
    tercio_bytes answer = {&asked.kind, sizeof asked.kind};
    return tercio_commit(call, 0, 0, &answer, 1);
}

static const tercio_host host = {.size = sizeof host, .run = run_request};

typedef struct {
    tercio_pool *pool;
    tercio_run *run;
    unsigned n_workers;
    uint64_t sent, answered;
} feeding;

/* Returns whether there was room. */
static bool push(feeding *f, request asked, bool more)
{
    tercio_bytes part = {&asked, sizeof asked};
    tercio_message message = {
        .size = sizeof message, .index = f->sent, .n_items = 1, .parts = &part, .n_parts = 1, .more = more};
    int taken = tercio_push(f->run, &message, false);
    assert_true(taken >= 0);
    f->sent += (uint64_t)taken;
    return taken;
}

/* Returns: the number of results, 0 where there are none (in time). */
static int take(feeding *f, double timeout)
{
    tercio_result result = {.size = sizeof result};
    int n = 0, found;
    while ((found = tercio_next(f->run, n ? 0 : timeout, &result)) == 1) {
        assert_int_equal(result.status, 0);
        tercio_release(f->run, &result);
        n++;
    }
    assert_true(found == 0 || found == TERCIO_EAGAIN);
    f->answered += (uint64_t)n;
    return n;
}

/* Every worker is nearly idle: the room is there as soon as that is seen. */
static void push_surely(feeding *f, request asked, bool more)
{
    while (!push(f, asked, more))
        (void)take(f, 0);
}

static void take_all(feeding *f)
{
    while (f->answered < f->sent)
        assert_true(take(f, BOUND_SECONDS / 2) > 0);
}

static bool is_put_off(const feeding *f)
{
    tercio__lock(f->pool);
    uint64_t since = f->pool->owed_since;
    tercio__unlock(f->pool);
    return since > 0;
}

/* A pool that is crowded, and has measured that messages of this run are quick. */
static feeding begin(void **state)
{
    feeding f = {.n_workers = tercio_usable_cpus() + 6};
    tercio_options options = {.size = sizeof options,
                              .host = &host,
                              .method = method_of(state),
                              .n_workers = f.n_workers,
                              .threads_at_fork = true};
    tercio_map_options of_run = {.size = sizeof of_run, .low_water = true, .unordered = true};
    atomic_store(&place->met, 0);
    atomic_store(&place->goes_on, 0);
    atomic_store(&place->waiting, 0);
    assert_int_equal(tercio_open(&f.pool, &options), 0);
    assert_int_equal(tercio_run_open(f.pool, NULL, 0, &of_run, &f.run), 0);
    while (!is_put_off(&f))
        while (!push(&f, (request){.kind = QUICK}, true))
            (void)take(&f, 0);
    take_all(&f);
    return f;
}

static void end(feeding *f)
{
    tercio_run_close(f->run);
    tercio_close(f->pool);
}

/* One for each worker. Their wakes are put off, unless something made the machine so slow that they don't look quick. */
static void push_meeting(feeding *f)
{
    for (unsigned i = 0; i < f->n_workers; i++)
        push_surely(f, (request){MEET, f->n_workers}, true);
}

/* Without a call that would wake anybody. */
static void all_meet(const feeding *f)
{
    for (uint64_t until = nanoseconds() + BOUND_SECONDS / 2 * UINT64_C(1000000000);
         atomic_load(&place->met) < f->n_workers && nanoseconds() < until;)
        sched_yield();
    assert_int_equal(atomic_load(&place->met), f->n_workers);
}

/* ---- What ends a row of messages -------------------------------------------------------------------------------- */

/* The keeper, who would wake them after a while, believes that its time is yet to come. */
static void without_timer(feeding *f)
{
    tercio__lock(f->pool);
    f->pool->look_at_owed = tercio__now() + 2 * BOUND_SECONDS * UINT64_C(1000000000);
    tercio__unlock(f->pool);
}

/* All meet though nothing else is called; and then the rest comes. */
static void all_meet_after(void **state, void (*end_row)(feeding *))
{
    feeding f = begin(state);
    without_timer(&f);
    push_meeting(&f);
    end_row(&f);
    all_meet(&f);
    take_all(&f);
    end(&f);
}

static void flush(feeding *f)
{
    tercio_run_flush(f->run);
}

static void push_the_last(feeding *f)
{
    push_surely(f, (request){.kind = QUICK}, false);
}

static void end_the_run(feeding *f)
{
    tercio_run_end(f->run);
}

static void wait_for_room(feeding *f) /* there is some: it returns at once */
{
    assert_int_equal(tercio_wait(f->run, BOUND_SECONDS / 2, true, NULL), 0);
}

static void wait_for_another_run(feeding *f)
{
    tercio_run *other;
    tercio_result result = {.size = sizeof result};
    assert_int_equal(tercio_run_open(f->pool, NULL, 0, NULL, &other), 0);
    assert_int_equal(tercio_next(other, 0.001, &result), TERCIO_EAGAIN);
    tercio_run_close(other);
}

static void a_flush(void **state)
{
    all_meet_after(state, flush);
}

static void a_message_that_nothing_follows(void **state)
{
    all_meet_after(state, push_the_last);
}

static void the_end_of_the_run(void **state)
{
    all_meet_after(state, end_the_run);
}

static void who_waits_for_room(void **state)
{
    all_meet_after(state, wait_for_room);
}

static void who_waits_for_another_run(void **state)
{
    all_meet_after(state, wait_for_another_run);
}

static void who_waits_for_a_result(void **state)
{
    all_meet_after(state, take_all);
}

static void who_finishes(void **state)
{
    feeding f = begin(state);
    without_timer(&f);
    push_meeting(&f);
    assert_int_equal(tercio_finish(f.pool, BOUND_SECONDS / 2, NULL, NULL), 0);
    assert_int_equal(atomic_load(&place->met), f.n_workers);
    end(&f);
}

/* ---- And what doesn't ------------------------------------------------------------------------------------------- */

/* Where the caller does something else: also soon after a row that was ended, whose timer is still set. */
static void nobody_is_put_off_for_long(void **state)
{
    feeding f = begin(state);
    for (int round = 0; round < 10; round++) {
        atomic_store(&place->met, 0);
        push_meeting(&f);
        if (round % 2 == 0)
            flush(&f);
        all_meet(&f);
        take_all(&f);
    }
    end(&f);
}

/* Each worker gets its first one though it has just answered the one before, and has yet to say that it is past it: no
 * two that wait for each other lie in one ring while another worker has nothing. Nobody would move them: no caller is
 * inside. */
static void one_for_each_of_those_that_just_answered(void **state)
{
    feeding f = begin(state);
    for (int round = 0; round < (SLOW ? 100 : 5000); round++) {
        atomic_store(&place->met, 0);
        for (unsigned i = 0; i < f.n_workers; i++)
            push_surely(&f, (request){.kind = QUICK}, true);
        take_all(&f);
        push_meeting(&f);
        flush(&f);
        all_meet(&f);
        take_all(&f);
    }
    end(&f);
}

/* Where it goes on, and on. */
static void nor_while_more_follow(void **state)
{
    feeding f = begin(state);
    push_meeting(&f);
    uint64_t until = nanoseconds() + BOUND_SECONDS / 2 * UINT64_C(1000000000);
    while (atomic_load(&place->met) < f.n_workers && nanoseconds() < until)
        if (!push(&f, (request){.kind = QUICK}, true))
            (void)take(&f, 0);
    all_meet(&f);
    take_all(&f);
    end(&f);
}

/* What is queued behind a long one, among quick ones, is moved at the end; all others pass it. */
static void one_that_is_held_up(void **state)
{
    feeding f = begin(state);
    for (unsigned i = 0; i < f.n_workers; i++)
        push_surely(&f, (request){.kind = QUICK}, true);
    assert_true(
        push(&f, (request){.kind = WAIT}, true)); /* beyond everybody's first: one of those that are awake gets it */
    uint64_t most = f.sent + 20000, until = nanoseconds() + BOUND_SECONDS / 2 * UINT64_C(1000000000);
    while (f.sent < most && nanoseconds() < until)
        if (!push(&f, (request){.kind = QUICK}, true) && take(&f, 0) == 0)
            assert_int_equal(tercio_wait(f.run, BOUND_SECONDS / 2, true, NULL), 0);
    assert_int_equal(f.sent, most);
    tercio_run_end(f.run);
    while (f.answered + 1 < f.sent)
        assert_true(take(&f, BOUND_SECONDS / 2) > 0);
    assert_int_equal(atomic_load(&place->waiting), 1);
    atomic_store(&place->goes_on, 1);
    take_all(&f);
    end(&f);
}

/* Two that wait for each other lie in one ring, others have nothing, and who could hand in more waits for them. */
static void one_behind_another(void **state)
{
    feeding f = begin(state);
    for (unsigned i = 0; i < f.n_workers; i++)
        push_surely(&f, (request){.kind = WAIT}, false);
    for (unsigned i = 0; i <= f.n_workers; i++) /* the first and the last of them go to the same worker */
        push_surely(&f, (request){i % f.n_workers ? QUICK : MEET, 2}, false);
    atomic_store(&place->goes_on, 1);
    take_all(&f);
    end(&f);
}

/* It was never woken for what it had: somebody else has it then. */
static void one_that_dies_meanwhile(void **state)
{
    skip_threads(state);
    for (unsigned victim = 0; victim < 8; victim++) {
        feeding f = begin(state);
        int pids[256];
        assert_true(f.n_workers <= 256);
        tercio_worker_pids(f.pool, pids, f.n_workers);
        push_meeting(&f);
        kill(pids[victim], SIGKILL);
        tercio_run_end(f.run);
        for (bool died = false; f.answered < f.sent;) {
            tercio_result result = {.size = sizeof result};
            int found = tercio_next(f.run, BOUND_SECONDS / 2, &result);
            assert_int_equal(found, 1);
            f.answered++;
            /* It may have been awake, and begun. Then the others are one too few, and are let go. */
            died |= result.status == TERCIO_EDIED;
            if (died)
                atomic_store(&place->met, f.n_workers);
            tercio_release(f.run, &result);
        }
        end(&f);
    }
}

static const battery_test tests[] = {
    BATTERY_TEST(a_flush),
    BATTERY_TEST(a_message_that_nothing_follows),
    BATTERY_TEST(the_end_of_the_run),
    BATTERY_TEST(who_waits_for_a_result),
    BATTERY_TEST(who_waits_for_room),
    BATTERY_TEST(who_finishes),
    BATTERY_TEST(who_waits_for_another_run),
    BATTERY_TEST(nobody_is_put_off_for_long),
    BATTERY_TEST(one_for_each_of_those_that_just_answered),
    BATTERY_TEST(nor_while_more_follow),
    BATTERY_TEST(one_that_is_held_up),
    BATTERY_TEST(one_behind_another),
    BATTERY_TEST(one_that_dies_meanwhile),
};

int main(int argc, char **argv)
{
    place = mmap(NULL, sizeof *place, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (place == MAP_FAILED)
        return 1;
    const char *filter = argc > 1 ? argv[1] : NULL;
    int failed = 0;
    if (filter == NULL || strstr(filter, "fork:") == filter)
        failed = run_battery("wakes", tests, sizeof tests / sizeof *tests, filter ? filter : "fork:");
    if (filter == NULL || strstr(filter, "threading:") == filter)
        failed += run_battery("wakes", tests, sizeof tests / sizeof *tests, filter ? filter : "threading:");
    return failed;
}
