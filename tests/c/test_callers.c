/* SPDX-License-Identifier: MIT
 *
 * Several threads that wait in one pool: one of them drives it for all, and whoever leaves sees to it that somebody
 * does. And what ends a wait from outside.
 */
#include "battery.h"

typedef struct {
    tercio_pool *pool;
    pthread_t thread;
    int n, result;
} helper;

static void *map_often(void *data)
{
    helper *self = data;
    enum { MANY = 50 };
    item *in = items_of(MANY, 5000);
    uint64_t out[MANY];
    self->result = 0;
    for (int round = 0; round < self->n && self->result == 0; round++) {
        tercio_map_options options = {.size = sizeof options, .chunk = (size_t)round % 5 + 1};
        memset(out, 0, sizeof out);
        self->result = tercio_map(self->pool, WORK, in, sizeof *in, MANY, out, &options, NULL);
        for (size_t i = 0; i < MANY; i++)
            self->result |= out[i] != i * 3 + 1;
    }
    free(in);
    return NULL;
}

static void drivers_take_turns(void **state)
{
    enum { CALLERS = 4 };
    tercio_pool *pool = open_pool(state, 2);
    helper helpers[CALLERS];
    for (int i = 0; i < CALLERS; i++) {
        helpers[i] = (helper){.pool = pool, .n = SLOW ? 20 : 100};
        assert_int_equal(pthread_create(&helpers[i].thread, NULL, map_often, &helpers[i]), 0);
    }
    for (int i = 0; i < CALLERS; i++) {
        pthread_join(helpers[i].thread, NULL);
        assert_int_equal(helpers[i].result, 0);
    }
    tercio_close(pool);
}

/* One waits for a long item and drives the pool; the other's short ones come home meanwhile. */
static void *wait_for_one(void *data)
{
    tercio_run *run = data;
    static tercio_result result;
    result.size = sizeof result;
    (void)tercio_next(run, -1, &result);
    tercio_release(run, &result);
    return NULL;
}

static void short_items_beside_a_long_one(void **state)
{
    tercio_pool *pool = open_pool(state, 2);
    tercio_run *run;
    pthread_t thread;
    signpost post;
    helper other = {.pool = pool, .n = 20};
    signpost_open(&post);
    assert_int_equal(tercio_submit(pool, LISTEN, signpost_input(&post), NULL, &run), 0);
    signpost_wait(&post, 1);
    assert_int_equal(pthread_create(&thread, NULL, wait_for_one, run), 0);
    map_often(&other);
    assert_int_equal(other.result, 0);
    assert_int_equal(tercio_cancel(run, 0), 0);
    pthread_join(thread, NULL);
    tercio_run_close(run);
    signpost_close(&post);
    tercio_close(pool);
}

typedef struct {
    tercio_pool *pool;
    pthread_t thread;
    item in;
    int result;
} waiter;

static void *map_one(void *data)
{
    waiter *self = data;
    uint64_t out = 0;
    self->result = tercio_map(self->pool, GATED, &self->in, sizeof self->in, 1, &out, NULL, NULL);
    self->result |= out != self->in.index * UINT64_C(3) + 1;
    return NULL;
}

static void begin_one(waiter *self, tercio_pool *pool, uint32_t index, uint32_t gate)
{
    *self = (waiter){.pool = pool, .in = {.index = index, .how = gate}};
    assert_int_equal(pthread_create(&self->thread, NULL, map_one, self), 0);
    while (!atomic_load(&the_ledger->begun[index]))
        sched_yield();
}

static void end_one(waiter *self)
{
    pthread_join(self->thread, NULL);
    assert_int_equal(self->result, 0);
}

/* The first to wait drives. It finds its own answer and the last one's together, and passes its place on to that one,
 * which has all that it wanted and never drives: the second one's answer has to be heard of all the same. */
static void who_leaves_passes_on(void **state)
{
    tercio_pool *pool = open_pool(state, 3);
    for (int round = 0; round < (SLOW ? 30 : 200); round++) {
        waiter first, second, last;
        new_ledger();
        begin_one(&first, pool, 0, 0);
        begin_one(&second, pool, 1, 1);
        begin_one(&last, pool, 2, 0);
        atomic_store(&the_ledger->open[0], 1);
        end_one(&first);
        end_one(&last);
        atomic_store(&the_ledger->open[1], 1);
        end_one(&second);
    }
    tercio_close(pool);
}

static void *finish_it(void *data)
{
    helper *self = data;
    self->result = tercio_finish(self->pool, 0, NULL, NULL);
    return NULL;
}

/* Whoever finishes waits for the others' work, whoever drives it. */
static void finished_while_others_wait(void **state)
{
    for (int round = 0; round < (SLOW ? 5 : 30); round++) {
        tercio_pool *pool = open_pool(state, 2);
        helper other = {.pool = pool};
        tercio_run *run;
        tercio_result result = {.size = sizeof result};
        item in = {.index = 5, .ns = (uint64_t)round * 20000};
        assert_int_equal(tercio_submit(pool, WORK, (tercio_bytes){&in, sizeof in}, NULL, &run), 0);
        assert_int_equal(pthread_create(&other.thread, NULL, finish_it, &other), 0);
        assert_int_equal(tercio_next(run, -1, &result), 1);
        assert_int_equal(result.status, 0);
        tercio_release(run, &result);
        pthread_join(other.thread, NULL);
        assert_int_equal(other.result, 0);
        tercio_run_close(run);
        tercio_close(pool);
    }
}

static void interrupted(void **state)
{
    tercio_pool *pool = open_pool(state, 1);
    tercio_run *run;
    tercio_result result = {.size = sizeof result};
    signpost post;
    signpost_open(&post);
    assert_int_equal(tercio_submit(pool, LISTEN, signpost_input(&post), NULL, &run), 0);
    signpost_wait(&post, 1);
    tercio_interrupt(pool);
    assert_int_equal(tercio_next(run, -1, &result), TERCIO_EINTERRUPTED);
    assert_int_equal(tercio_next(run, 0, &result), TERCIO_EAGAIN);
    assert_int_equal(tercio_cancel(run, 0), 0);
    assert_int_equal(tercio_next(run, -1, &result), 1);
    tercio_release(run, &result);
    tercio_run_close(run);
    signpost_close(&post);
    still_works(pool);
    tercio_close(pool);
}

int main(int argc, char **argv)
{
    static const battery_test tests[] = {
        BATTERY_TEST(drivers_take_turns),   BATTERY_TEST(short_items_beside_a_long_one),
        BATTERY_TEST(who_leaves_passes_on), BATTERY_TEST(finished_while_others_wait),
        BATTERY_TEST(interrupted),
    };
    tercio_worker_entry(argc, argv, &table);
    return run_battery("callers", tests, sizeof tests / sizeof *tests, argc > 1 ? argv[1] : NULL);
}
