/* SPDX-License-Identifier: MIT
 *
 * The end of a worker process, as its host sees it: `live` stands around the worker's life, and a `leave` that hangs is
 * cut short.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tercio.h"

/* What the worker did, for the parent. */
static struct {
    _Atomic int begun, ran, left, ended;
} * seen;

static int run_items(void *user, tercio_call *call, const tercio_chunk *chunk)
{
    tercio_bytes answer = {"done", 4};
    (void)user;
    atomic_fetch_add(&seen->ran, 1);
    for (uint32_t i = chunk->skip; i < chunk->n_items; i++)
        if (tercio_commit(call, 0, 0, &answer, 1))
            break;
    return 0;
}

static void leave(void *user, tercio_call *call)
{
    (void)user;
    (void)call;
    atomic_fetch_add(&seen->left, 1);
}

static void leave_never(void *user, tercio_call *call)
{
    leave(user, call);
    for (;;)
        pause();
}

static void live(void *user, tercio_call *call, void (*rest)(tercio_call *))
{
    (void)user;
    atomic_fetch_add(&seen->begun, 1);
    rest(call);
    atomic_fetch_add(&seen->ended, 1);
}

static void live_on(void *user, tercio_call *call, void (*rest)(tercio_call *))
{
    live(user, call, rest);
    for (;;)
        pause();
}

/* One message, answered; then the pool is finished, which a hang would keep from its end. */
static uint64_t cut_short_by(const tercio_host *host)
{
    tercio_options options = {.size = sizeof options,
                              .host = host,
                              .method = TERCIO_FORK,
                              .n_workers = 1,
                              .grace = 0.05,
                              .threads_at_fork = true};
    tercio_pool *pool;
    tercio_run *run;
    tercio_bytes part = {"item", 4};
    tercio_message message = {.size = sizeof message, .n_items = 1, .parts = &part, .n_parts = 1};
    tercio_result result = {.size = sizeof result};
    tercio_stats stats = {.size = sizeof stats};
    memset(seen, 0, sizeof *seen);
    assert_int_equal(tercio_open(&pool, &options), 0);
    assert_int_equal(tercio_run_open(pool, NULL, 0, NULL, &run), 0);
    assert_int_equal(tercio_push(run, &message, true), 1);
    tercio_run_end(run);
    assert_int_equal(tercio_next(run, -1, &result), 1);
    assert_int_equal(result.status, 0);
    tercio_release(run, &result);
    tercio_run_close(run);
    assert_int_equal(tercio_finish(pool, 0, NULL, NULL), 0);
    assert_int_equal(tercio_get_stats(pool, &stats, 1), 1);
    tercio_close(pool);
    assert_int_equal(atomic_load(&seen->ran), 1);
    assert_int_equal(atomic_load(&seen->left), 1);
    return stats.cut_short;
}

static void live_stands_around_a_life(void **state)
{
    tercio_host host = {.size = sizeof host, .run = run_items, .leave = leave, .live = live};
    (void)state;
    assert_int_equal(cut_short_by(&host), 0);
    assert_int_equal(atomic_load(&seen->begun), 1);
    assert_int_equal(atomic_load(&seen->ended), 1);
}

static void an_older_host_has_no_live(void **state)
{
    tercio_host host = {.size = offsetof(tercio_host, live), .run = run_items, .leave = leave, .live = live};
    (void)state;
    assert_int_equal(cut_short_by(&host), 0);
    assert_int_equal(atomic_load(&seen->begun), 0);
}

static void what_hangs_in_leave_is_killed(void **state)
{
    tercio_host host = {.size = sizeof host, .run = run_items, .leave = leave_never, .live = live};
    (void)state;
    assert_int_equal(cut_short_by(&host), 1);
    assert_int_equal(atomic_load(&seen->ended), 0);
}

static void what_hangs_behind_its_goodbye_is_killed(void **state)
{
    tercio_host host = {.size = sizeof host, .run = run_items, .leave = leave, .live = live_on};
    (void)state;
    assert_int_equal(cut_short_by(&host), 1);
    assert_int_equal(atomic_load(&seen->ended), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(live_stands_around_a_life),
        cmocka_unit_test(an_older_host_has_no_live),
        cmocka_unit_test(what_hangs_in_leave_is_killed),
        cmocka_unit_test(what_hangs_behind_its_goodbye_is_killed),
    };
    seen = mmap(NULL, sizeof *seen, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (seen == MAP_FAILED)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
