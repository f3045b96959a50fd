/* SPDX-License-Identifier: MIT
 *
 * The order of a run within each worker (order.c), seen from tasks of the C face that keep the last item in the state of
 * their worker. How a worker is started makes no difference to it: forked ones and threads will do.
 */
#include "battery.h"

enum { WALK };
enum { QUICK, HELD, DIES };
enum { N = 1500 };

typedef struct {
    uint64_t index;
    uint32_t kind, n;
} request;

/* Shared with forked workers. */
static struct {
    _Atomic uint32_t done, died;
} * place;

/* Whether the worker has run a later one: 0 or 1. */
static int walk(tercio_call *call, tercio_bytes in, void *out)
{
    uint64_t *next = tercio_state(call);
    request asked;
    memcpy(&asked, in.data, sizeof asked);
    if (asked.kind == DIES && atomic_fetch_add(&place->died, 1) < asked.n)
        kill(getpid(), SIGKILL);
    while (asked.kind == HELD && atomic_load(&place->done) < asked.n && !tercio_stopping(call))
        sched_yield();
    uint32_t back = asked.index < *next;
    *next = asked.index + 1;
    atomic_fetch_add(&place->done, 1);
    memcpy(out, &back, sizeof back);
    return 0;
}

static int remember(tercio_call *call, void **state)
{
    (void)call;
    return (*state = calloc(1, sizeof(uint64_t))) == NULL;
}

static int forget(tercio_call *call, void *state)
{
    (void)call;
    free(state);
    return 0;
}

static const tercio_task walker_tasks[] = {[WALK] = {"walk", walk, sizeof(uint32_t)}};
static const tercio_table walkers = {.size = sizeof walkers,
                                     .task_size = sizeof *walker_tasks,
                                     .n_tasks = 1,
                                     .tasks = walker_tasks,
                                     .init = remember,
                                     .exit = forget};

static request items[N];
static uint32_t backs[N];

/* The exit function of a worker runs where the pool is finished first. */
static void close_walkers(tercio_pool *pool)
{
    assert_int_equal(tercio_finish(pool, 0, NULL, NULL), 0);
    tercio_close(pool);
}

static tercio_pool *open_walkers(void **state, unsigned n_workers)
{
    tercio_pool *pool;
    tercio_options options = {.size = sizeof options,
                              .table = &walkers,
                              .method = method_of(state),
                              .n_workers = n_workers,
                              .threads_at_fork = true};
    for (unsigned i = 0; i < N; i++)
        items[i] = (request){.index = i};
    assert_int_equal(tercio_open(&pool, &options), 0);
    return pool;
}

/* Returns: the items that a worker ran after a later one. */
static unsigned map(tercio_pool *pool, const tercio_map_options *options)
{
    unsigned back = 0;
    atomic_store(&place->done, 0);
    atomic_store(&place->died, 0);
    assert_int_equal(tercio_map(pool, WALK, items, sizeof *items, N, backs, options, NULL), 0);
    for (unsigned i = 0; i < N; i++)
        back += backs[i];
    return back;
}

/* Maps of one pool; the items of each one go on where those before it ended, so workers keep their states. */
static unsigned maps_with_steps_back(void **state, bool strict, size_t chunk)
{
    unsigned found = 0;
    tercio_pool *pool = open_walkers(state, 3);
    tercio_map_options options = {.size = sizeof options, .chunk = chunk, .strict_order = strict};
    for (unsigned round = 1; round <= 50; round++) {
        found += map(pool, &options) > 0;
        for (unsigned i = 0; i < N; i++)
            items[i].index = (uint64_t)round * N + i;
    }
    close_walkers(pool);
    return found;
}

static void a_strict_map(void **state)
{
    for (size_t chunk = 0; chunk < 3; chunk++)
        assert_int_equal(maps_with_steps_back(state, true, chunk), 0);
}

/* A worker that the system has stopped for long may count as one whose task takes long. */
static void any_map(void **state)
{
    for (size_t chunk = 0; chunk < 3; chunk++)
        assert_true(maps_with_steps_back(state, false, chunk) <= 5);
}

static int next_item(void *user, tercio_bytes *input)
{
    unsigned *i = user;
    if (*i == N)
        return 0;
    *input = (tercio_bytes){&items[(*i)++], sizeof *items};
    return 1;
}

static void a_stream(void **state)
{
    tercio_pool *pool = open_walkers(state, 3);
    tercio_map_options options = {.size = sizeof options, .strict_order = true};
    tercio_result result = {.size = sizeof result};
    tercio_run *run;
    unsigned asked = 0, back = 0;
    assert_int_equal(tercio_stream(pool, WALK, next_item, &asked, &options, &run), 0);
    while (tercio_next(run, BOUND_SECONDS / 2, &result) == 1) {
        uint32_t one;
        assert_int_equal(result.out.size, sizeof one);
        memcpy(&one, result.out.data, sizeof one);
        back += one;
        tercio_release(run, &result);
    }
    assert_int_equal(asked, N);
    assert_int_equal(back, 0);
    tercio_run_close(run);
    close_walkers(pool);
}

/* All others run while one is held, also those that would have been queued behind it. */
static void nothing_waits_behind_one_that_is_held(void **state)
{
    for (unsigned held = 0; held < N; held += N / 3)
        for (int strict = 0; strict < 2; strict++) {
            tercio_pool *pool = open_walkers(state, 2);
            tercio_map_options options = {.size = sizeof options, .chunk = 1, .strict_order = strict};
            items[held].kind = HELD;
            items[held].n = N - 1;
            (void)map(pool, &options);
            assert_true(!strict || backs[held] == 0);
            close_walkers(pool);
        }
}

static void deaths_and_another_try(void **state)
{
    skip_threads(state);
    for (size_t chunk = 1; chunk < 4; chunk++) {
        tercio_pool *pool = open_walkers(state, 3);
        tercio_map_options options = {.size = sizeof options, .chunk = chunk, .retries = 4, .strict_order = true};
        for (unsigned i = 100; i < N; i += 200)
            items[i] = (request){.index = i, .kind = DIES, .n = 4};
        assert_int_equal(map(pool, &options), 0);
        assert_true(atomic_load(&place->died) > 4);
        close_walkers(pool);
    }
}

static void workers_that_are_replaced(void **state)
{
    for (int strict = 0; strict < 2; strict++) {
        tercio_pool *pool = open_walkers(state, 3);
        tercio_map_options options = {.size = sizeof options, .chunk = 2, .lifespan = 50, .strict_order = strict};
        unsigned back = map(pool, &options);
        assert_true(!strict || back == 0);
        close_walkers(pool);
    }
}

static const battery_test tests[] = {
    BATTERY_TEST(a_strict_map),
    BATTERY_TEST(any_map),
    BATTERY_TEST(a_stream),
    BATTERY_TEST(nothing_waits_behind_one_that_is_held),
    BATTERY_TEST(deaths_and_another_try),
    BATTERY_TEST(workers_that_are_replaced),
};

int main(int argc, char **argv)
{
    place = shared_memory(sizeof *place);
    return run_battery_of_two("order", tests, sizeof tests / sizeof *tests, argc > 1 ? argv[1] : NULL);
}
