/* SPDX-License-Identifier: MIT
 *
 * Limits on the time of items, of init and of exit: what is heard, and what ends a worker.
 */
#include "battery.h"

static void one_with_a_limit(tercio_pool *pool, unsigned task, double timeout, int status)
{
    signpost post;
    tercio_map_options options = {.size = sizeof options, .timeout = timeout};
    tercio_result first = {.size = sizeof first};
    signpost_open(&post);
    tercio_bytes in = signpost_input(&post);
    assert_int_equal(tercio_map(pool, task, in.data, in.size, 1, NULL, &options, &first), 1);
    assert_int_equal(first.status, status);
    assert_int_equal(first.attempts, 1);
    signpost_wait(&post, 1);
    signpost_close(&post);
}

static void a_limit_that_is_heard(void **state)
{
    tercio_pool *pool = open_pool(state, 2);
    int before[2], after[2];
    still_works(pool); /* so that both live */
    tercio_worker_pids(pool, before, 2);
    tercio_map_options options = {.size = sizeof options, .timeout = 0.05};
    tercio_result first = {.size = sizeof first};
    signpost post;
    signpost_open(&post);
    tercio_bytes in = signpost_input(&post);
    /* It ends by itself when it is told; threads are left behind instead. */
    assert_int_equal(tercio_map(pool, LISTEN, in.data, in.size, 1, NULL, &options, &first), 1);
    signpost_wait(&post, 1);
    signpost_close(&post);
    tercio_worker_pids(pool, after, 2);
    for (int i = 0; i < 2; i++)
        assert_int_equal(before[i], after[i]);
    still_works(pool);
    tercio_close(pool);
}

static void a_limit_that_is_not_heard(void **state)
{
    tercio_options options = options_of(state, 2);
    tercio_pool *pool;
    skip_threads(state); /* it would burn a CPU until this program ends */
    options.grace = 0.05;
    assert_int_equal(tercio_open(&pool, &options), 0);
    for (int i = 0; i < 3; i++) {
        one_with_a_limit(pool, STUCK, 0.05, TERCIO_ETIMEDOUT);
        one_with_a_limit(pool, SLEEP, 0.05, TERCIO_ETIMEDOUT);
    }
    still_works(pool);
    tercio_close(pool);
}

static void a_limit_leaves_the_others_alone(void **state)
{
    enum { MANY = 40 };
    skip_threads(state);
    tercio_options options = options_of(state, 2);
    tercio_pool *pool;
    options.grace = 0.05;
    assert_int_equal(tercio_open(&pool, &options), 0);
    item *in = items_of(MANY, 0);
    uint64_t out[MANY] = {0};
    in[20].ns = UINT64_C(1000000000000);
    for (size_t chunk = 1; chunk <= 10; chunk += 9) {
        tercio_map_options limited = {.size = sizeof limited, .timeout = SLOW ? 2 : 0.5, .chunk = chunk};
        tercio_result first = {.size = sizeof first};
        new_ledger();
        memset(out, 0, sizeof out);
        assert_int_equal(tercio_map(pool, WORK, in, sizeof *in, MANY, out, &limited, &first), 1);
        assert_int_equal(first.index, 20);
        assert_int_equal(first.status, TERCIO_ETIMEDOUT);
        for (size_t i = 0; i < MANY; i++) {
            assert_int_equal(out[i], i == 20 ? 0 : i * 3 + 1);
            assert_int_equal(the_ledger->begun[i], 1);
        }
    }
    tercio_close(pool);
    free(in);
}

/* What runs when its run is closed goes on, and its limit with it: the worker is there for the next call. */
static void a_limit_outlives_its_run(void **state)
{
    skip_threads(state);
    tercio_options options = options_of(state, 1);
    tercio_map_options limited = {.size = sizeof limited, .timeout = SLOW ? 1 : 0.2};
    tercio_pool *pool;
    tercio_run *run;
    signpost post;
    options.grace = 0.05;
    assert_int_equal(tercio_open(&pool, &options), 0);
    signpost_open(&post);
    assert_int_equal(tercio_submit(pool, STUCK, signpost_input(&post), &limited, &run), 0);
    signpost_wait(&post, 1);
    tercio_run_close(run);
    still_works(pool);
    tercio_close(pool);
    signpost_close(&post);
}

/* Its limit begins when it does, however long it stood behind one that has none. */
static void a_limit_behind_one_without(void **state)
{
    skip_threads(state);
    tercio_options options = options_of(state, 1);
    tercio_map_options limited = {.size = sizeof limited, .timeout = 0.05};
    tercio_pool *pool;
    tercio_run *first, *second;
    tercio_result result = {.size = sizeof result};
    item in = {.ns = 300000000};
    signpost post;
    options.grace = 0.05;
    assert_int_equal(tercio_open(&pool, &options), 0);
    signpost_open(&post);
    assert_int_equal(tercio_submit(pool, WORK, (tercio_bytes){&in, sizeof in}, NULL, &first), 0);
    assert_int_equal(tercio_submit(pool, STUCK, signpost_input(&post), &limited, &second), 0);
    assert_int_equal(tercio_next(second, BOUND_SECONDS / 2, &result), 1);
    assert_int_equal(result.status, TERCIO_ETIMEDOUT);
    tercio_release(second, &result);
    assert_int_equal(tercio_next(first, BOUND_SECONDS / 2, &result), 1);
    assert_int_equal(result.status, 0);
    tercio_release(first, &result);
    tercio_run_close(first);
    tercio_run_close(second);
    tercio_close(pool);
    signpost_close(&post);
}

static void a_limit_for_init(void **state)
{
    skip_threads(state);
    tercio_options options = options_of(state, 1);
    tercio_pool *pool;
    tercio_result first = {.size = sizeof first};
    item in = {0};
    uint64_t out;
    options.init_timeout = 0.1;
    setenv("BATTERY_INIT", "stuck", 1);
    assert_int_equal(tercio_open(&pool, &options), 0);
    assert_true(tercio_map(pool, WORK, &in, sizeof in, 1, &out, NULL, &first) < 0);
    unsetenv("BATTERY_INIT");
    assert_int_equal(first.status, TERCIO_ETIMEDOUT);
    tercio_close(pool);
}

static void a_limit_for_exit(void **state)
{
    skip_threads(state);
    tercio_options options = options_of(state, 1);
    tercio_pool *pool;
    options.exit_timeout = 0.1;
    setenv("BATTERY_EXIT", "stuck", 1);
    assert_int_equal(tercio_open(&pool, &options), 0);
    still_works(pool);
    assert_int_equal(tercio_finish(pool, 0, NULL, NULL), TERCIO_ETIMEDOUT);
    unsetenv("BATTERY_EXIT");
    tercio_close(pool);
}

int main(int argc, char **argv)
{
    static const battery_test tests[] = {
        BATTERY_TEST(a_limit_that_is_heard),
        BATTERY_TEST(a_limit_that_is_not_heard),
        BATTERY_TEST(a_limit_leaves_the_others_alone),
        BATTERY_TEST(a_limit_outlives_its_run),
        BATTERY_TEST(a_limit_behind_one_without),
        BATTERY_TEST(a_limit_for_init),
        BATTERY_TEST(a_limit_for_exit),
    };
    tercio_worker_entry(argc, argv, &table);
    return run_battery("deadlines", tests, sizeof tests / sizeof *tests, argc > 1 ? argv[1] : NULL);
}
