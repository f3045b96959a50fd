/* SPDX-License-Identifier: MIT
 *
 * How much a pool holds: items of tercio_submit up to options.max_pending, then TERCIO_EAGAIN, and tercio_wait_room
 * until one is finished.
 */
#include "battery.h"

#include <semaphore.h>

enum { MOST = 4 };

static tercio_pool *open_bounded(void **state, unsigned n_workers, size_t max_pending)
{
    tercio_options options = options_of(state, n_workers);
    tercio_pool *pool;
    options.max_pending = max_pending;
    options.grace = 0.05;
    assert_int_equal(tercio_open(&pool, &options), 0);
    return pool;
}

static int submit(tercio_pool *pool, unsigned task, item asked, tercio_run **run)
{
    return tercio_submit(pool, task, (tercio_bytes){&asked, sizeof asked}, NULL, run);
}

static int submit_gated(tercio_pool *pool, uint32_t index, tercio_run **run)
{
    return submit(pool, GATED, (item){.index = index}, run);
}

static void open_gate(void)
{
    atomic_store(&the_ledger->open[0], 1);
}

static void expect_result(tercio_run *run, int status)
{
    tercio_result result = {.size = sizeof result};
    assert_int_equal(tercio_next(run, BOUND_SECONDS / 2, &result), 1);
    assert_int_equal(result.status, status);
    tercio_release(run, &result);
    tercio_run_close(run);
}

/* It takes so many, and no more. */
static void expect_room_for(tercio_pool *pool, unsigned n, tercio_run **runs)
{
    tercio_run *none = (tercio_run *)(uintptr_t)1;
    for (unsigned i = 0; i < n; i++)
        assert_int_equal(submit_gated(pool, i, &runs[i]), 0);
    assert_int_equal(submit_gated(pool, n, &none), TERCIO_EAGAIN);
    assert_null(none);
    assert_int_equal(tercio_wait_room(pool, 0, NULL), TERCIO_EAGAIN);
    assert_int_equal(tercio_wait_room(pool, 0.001, NULL), TERCIO_EAGAIN);
}

/* ---- The bound ------------------------------------------------------------------------------------------------------- */

static void as_many_as_asked_for(void **state)
{
    tercio_pool *pool = open_bounded(state, 2, MOST);
    tercio_run *runs[MOST], *more;
    assert_int_equal(tercio_wait_room(pool, 0, NULL), 0);
    expect_room_for(pool, MOST, runs);
    open_gate();
    /* One that is finished makes room, though nobody has taken its result. */
    assert_int_equal(tercio_wait_room(pool, BOUND_SECONDS / 2, NULL), 0);
    assert_int_equal(submit_gated(pool, MOST, &more), 0);
    for (unsigned i = 0; i < MOST; i++)
        expect_result(runs[i], 0);
    expect_result(more, 0);
    tercio_close(pool);
}

static void one_at_a_time(void **state)
{
    tercio_pool *pool = open_bounded(state, 3, 1);
    tercio_run *run;
    expect_room_for(pool, 1, &run);
    open_gate();
    for (uint32_t i = 1; i < 100; i++) {
        tercio_run *next;
        assert_int_equal(tercio_wait_room(pool, BOUND_SECONDS / 2, NULL), 0);
        assert_int_equal(submit_gated(pool, i, &next), 0);
        expect_result(run, 0);
        run = next;
    }
    expect_result(run, 0);
    tercio_close(pool);
}

/* Messages that are large lie in shared memory, small ones in the heap: both count. */
static void bytes_are_bounded_too(void **state)
{
    enum { LIMIT = 1 << 20 };
    static const size_t sizes[] = {2000, 100000};
    static unsigned char bytes[100000];
    tercio_options options = options_of(state, 1);
    options.arena_bytes = LIMIT;
    for (size_t i = 0; i < 2; i++) {
        static tercio_run *runs[2 * LIMIT / 2000];
        tercio_pool *pool;
        size_t n = 0;
        int error;
        new_ledger();
        assert_int_equal(tercio_open(&pool, &options), 0);
        memset(bytes, 0, sizeof bytes);
        while ((error = tercio_submit(pool, GATED, (tercio_bytes){bytes, sizes[i]}, NULL, &runs[n])) == 0)
            assert_true(++n < sizeof runs / sizeof *runs);
        assert_int_equal(error, TERCIO_EAGAIN);
        assert_true(n >= LIMIT / sizes[i] / 2);
        assert_true(n <= LIMIT / sizes[i] + 256); /* and what lies in a worker's ring */
        open_gate();
        assert_int_equal(tercio_wait_room(pool, BOUND_SECONDS / 2, NULL), 0);
        for (size_t k = 0; k < n; k++)
            expect_result(runs[k], 0);
        tercio_close(pool);
    }
}

static void a_default(void **state)
{
    static tercio_run *runs[10001];
    tercio_pool *pool = open_bounded(state, 1, 0);
    expect_room_for(pool, 10000, runs);
    for (int i = 0; i < 10000; i++)
        tercio_run_close(runs[i]);
    open_gate();
    tercio_close(pool);
}

/* ---- What makes room ------------------------------------------------------------------------------------------------- */

/* Takes so many, however long those before them take to end. */
static void submit_surely(tercio_pool *pool, unsigned task, uint32_t how, tercio_run **runs)
{
    for (uint32_t i = 0; i < MOST; i++) {
        int error;
        while ((error = submit(pool, task, (item){.index = i, .how = how}, &runs[i])) == TERCIO_EAGAIN)
            assert_int_equal(tercio_wait_room(pool, BOUND_SECONDS / 2, NULL), 0);
        assert_int_equal(error, 0);
    }
}

/* The pool is as it was at first: exactly so many have room, before and after. */
static void expect_as_new(tercio_pool *pool)
{
    tercio_run *runs[MOST];
    submit_surely(pool, WORK, 0, runs);
    for (uint32_t i = 0; i < MOST; i++)
        expect_result(runs[i], 0);
    new_ledger();
    expect_room_for(pool, MOST, runs);
    open_gate();
    for (uint32_t i = 0; i < MOST; i++)
        expect_result(runs[i], 0);
}

static void failed_items_count_once(void **state)
{
    tercio_pool *pool = open_bounded(state, 2, MOST);
    tercio_run *runs[MOST];
    submit_surely(pool, FAILING, 0, runs);
    for (uint32_t i = 0; i < MOST; i++)
        expect_result(runs[i], TERCIO_EFAILED);
    expect_as_new(pool);
    tercio_close(pool);
}

static void those_that_die_count_once(void **state)
{
    skip_threads(state);
    tercio_pool *pool = open_bounded(state, 2, MOST);
    tercio_run *runs[MOST];
    submit_surely(pool, HOW, BY_KILL, runs);
    for (uint32_t i = 0; i < MOST; i++)
        expect_result(runs[i], TERCIO_EDIED);
    expect_as_new(pool);
    tercio_close(pool);
}

static void cancelled_items_count_once(void **state)
{
    tercio_pool *pool = open_bounded(state, 2, MOST);
    tercio_run *runs[MOST];
    expect_room_for(pool, MOST, runs);
    for (uint32_t i = 2; i < MOST; i++) /* behind those that run */
        assert_int_equal(tercio_cancel(runs[i], 0), 0);
    open_gate();
    for (uint32_t i = 0; i < MOST; i++)
        expect_result(runs[i], i < 2 ? 0 : TERCIO_ECANCELED);
    expect_as_new(pool);
    tercio_close(pool);
}

static void closed_runs_count_once(void **state)
{
    tercio_pool *pool = open_bounded(state, 1, MOST);
    tercio_run *runs[MOST], *last;
    expect_room_for(pool, MOST, runs);
    for (uint32_t i = 0; i < MOST; i++)
        tercio_run_close(runs[i]);
    open_gate();                       /* for one that has begun, perhaps, and counts until its end */
    for (uint32_t i = 0; i < 2; i++) { /* the worker takes one thing after another */
        assert_int_equal(tercio_wait_room(pool, BOUND_SECONDS / 2, NULL), 0);
        assert_int_equal(submit(pool, WORK, (item){.index = i}, &last), 0);
        expect_result(last, 0);
    }
    expect_as_new(pool);
    tercio_close(pool);
}

/* ---- Those who wait -------------------------------------------------------------------------------------------------- */

typedef struct {
    tercio_pool *pool;
    pthread_t thread;
    int result;
    _Atomic bool ended;
} sleeper;

static void *sleep_for_room(void *argument)
{
    sleeper *self = argument;
    self->result = tercio_wait_room(self->pool, BOUND_SECONDS / 2, NULL);
    atomic_store(&self->ended, true);
    return NULL;
}

static void begin_to_wait(sleeper *self, tercio_pool *pool)
{
    *self = (sleeper){.pool = pool};
    assert_int_equal(pthread_create(&self->thread, NULL, sleep_for_room, self), 0);
}

static void expect_end(sleeper *self, int result)
{
    pthread_join(self->thread, NULL);
    assert_int_equal(self->result, result);
}

static void a_cancelled_item_makes_room(void **state)
{
    tercio_pool *pool = open_bounded(state, 1, MOST);
    tercio_run *runs[MOST];
    sleeper one, two;
    expect_room_for(pool, MOST, runs);
    begin_to_wait(&one, pool);
    begin_to_wait(&two, pool); /* one of them drives */
    assert_int_equal(tercio_cancel(runs[MOST - 1], 0), 0);
    expect_end(&one, 0);
    expect_end(&two, 0);
    open_gate();
    for (uint32_t i = 0; i < MOST; i++)
        expect_result(runs[i], i < MOST - 1 ? 0 : TERCIO_ECANCELED);
    tercio_close(pool);
}

static void a_closed_run_makes_room(void **state)
{
    tercio_pool *pool = open_bounded(state, 1, MOST);
    tercio_run *runs[MOST];
    sleeper one, two;
    expect_room_for(pool, MOST, runs);
    begin_to_wait(&one, pool);
    begin_to_wait(&two, pool);
    tercio_run_close(runs[MOST - 1]);
    expect_end(&one, 0);
    expect_end(&two, 0);
    open_gate();
    for (uint32_t i = 0; i < MOST - 1; i++)
        expect_result(runs[i], 0);
    tercio_close(pool);
}

static void an_interrupt_ends_the_wait(void **state)
{
    tercio_pool *pool = open_bounded(state, 1, 1);
    tercio_run *run;
    sleeper one;
    expect_room_for(pool, 1, &run);
    begin_to_wait(&one, pool);
    tercio_interrupt(pool); /* also before it sleeps: the next wait has it */
    expect_end(&one, TERCIO_EINTERRUPTED);
    open_gate();
    expect_result(run, 0);
    tercio_close(pool);
}

static void a_pool_that_ends_lets_go(void **state)
{
    skip_threads(state);
    tercio_pool *pool = open_bounded(state, 1, 1);
    tercio_run *run;
    sleeper one, two;
    expect_room_for(pool, 1, &run);
    begin_to_wait(&one, pool);
    begin_to_wait(&two, pool);
    assert_int_equal(tercio_finish(pool, 0.01, NULL, NULL), TERCIO_ETIMEDOUT);
    expect_end(&one, TERCIO_ECLOSED);
    expect_end(&two, TERCIO_ECLOSED);
    assert_int_equal(tercio_wait_room(pool, -1, NULL), TERCIO_ECLOSED);
    tercio_run_close(run);
    tercio_close(pool);
}

/* Many threads, a small bound: every item runs once, and nobody waits for ever. */
typedef struct {
    tercio_pool *pool;
    uint32_t first, n;
    sem_t *refused;
} producer;

static void *produce(void *argument)
{
    producer *self = argument;
    tercio_run *last[2] = {NULL, NULL};
    bool was_refused = false;
    for (uint32_t i = 0; i < self->n; i++) {
        tercio_run **run = &last[i % 2];
        tercio_run_close(*run); /* perhaps before it ran */
        while (submit(self->pool, WORK, (item){.index = self->first + i}, run) == TERCIO_EAGAIN) {
            if (!was_refused)
                sem_post(self->refused);
            was_refused = true;
            if (tercio_wait_room(self->pool, BOUND_SECONDS / 2, NULL))
                abort();
        }
    }
    for (int i = 0; i < 2; i++) {
        tercio_result result = {.size = sizeof result};
        if (tercio_next(last[i], BOUND_SECONDS / 2, &result) != 1)
            abort();
        tercio_run_close(last[i]);
    }
    return NULL;
}

static void many_threads_submit(void **state)
{
    enum { THREADS = 4, BOUND = 3, EACH = SLOW ? 300 : 2000 };
    tercio_pool *pool = open_bounded(state, 2, BOUND);
    tercio_run *gated[BOUND];
    producer all[THREADS];
    pthread_t threads[THREADS];
    sem_t refused;
    assert_int_equal(sem_init(&refused, 0, 0), 0);
    for (uint32_t i = 0; i < BOUND; i++)
        assert_int_equal(submit_gated(pool, THREADS * EACH + i, &gated[i]), 0);
    for (uint32_t i = 0; i < THREADS; i++) {
        all[i] = (producer){.pool = pool, .first = i * EACH, .n = EACH, .refused = &refused};
        assert_int_equal(pthread_create(&threads[i], NULL, produce, &all[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) /* each of them is refused at first */
        while (sem_wait(&refused) != 0)
            assert_int_equal(errno, EINTR);
    open_gate();
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < BOUND; i++)
        expect_result(gated[i], 0);
    sem_destroy(&refused);
    for (uint32_t i = 0; i < THREADS * EACH; i++)
        assert_true(the_ledger->begun[i] <= 1);
    tercio_close(pool);
}

static const battery_test tests_of_bounds[] = {
    BATTERY_TEST(as_many_as_asked_for),        BATTERY_TEST(one_at_a_time),
    BATTERY_TEST(bytes_are_bounded_too),       BATTERY_TEST(a_default),
    BATTERY_TEST(failed_items_count_once),     BATTERY_TEST(those_that_die_count_once),
    BATTERY_TEST(cancelled_items_count_once),  BATTERY_TEST(closed_runs_count_once),
    BATTERY_TEST(a_cancelled_item_makes_room), BATTERY_TEST(a_closed_run_makes_room),
    BATTERY_TEST(an_interrupt_ends_the_wait),  BATTERY_TEST(a_pool_that_ends_lets_go),
    BATTERY_TEST(many_threads_submit),
};

int main(int argc, char **argv)
{
    tercio_worker_entry(argc, argv, &table);
    return run_battery("pending", tests_of_bounds, sizeof tests_of_bounds / sizeof *tests_of_bounds,
                       argc > 1 ? argv[1] : NULL);
}
