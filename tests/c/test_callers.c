/* SPDX-License-Identifier: MIT
 *
 * Several threads that wait in one pool: one of them drives it for all, and whoever leaves sees to it that somebody
 * does. What ends a wait from outside. And who is heard of though it is another one that sleeps: the polled, those that
 * stop, those that finish.
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
        for (size_t i = 0; i < MANY && self->result == 0; i++)
            self->result = out[i] != i * 3 + 1;
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

/* A caller that finishes waits for the others' work, whichever of them leads. */
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

/* ---- Whoever is asleep hears for others -------------------------------------------------------------------------- */

static bool is_readable(int fd)
{
    struct pollfd asked = {.fd = fd, .events = POLLIN};
    return poll(&asked, 1, BOUND_SECONDS / 2 * 1000) == 1;
}

static tercio_run *submit(tercio_pool *pool, unsigned task, uint32_t index, uint32_t gate)
{
    item in = {.index = index, .how = gate};
    tercio_run *run;
    assert_int_equal(tercio_submit(pool, task, (tercio_bytes){&in, sizeof in}, NULL, &run), 0);
    return run;
}

static void take_one(tercio_run *run)
{
    tercio_result result = {.size = sizeof result};
    assert_int_equal(tercio_next(run, BOUND_SECONDS / 2, &result), 1);
    assert_int_equal(result.status, 0);
    tercio_release(run, &result);
}

/* A map asks to be woken when all that it handed in is done. A run that is polled wants to know earlier: the map's item
 * may wait for what is done with its result. */
static void polled_beside_a_map(void **state)
{
    tercio_pool *pool = open_pool(state, 2);
    for (int round = 0; round < 30; round++) {
        waiter map;
        new_ledger();
        begin_one(&map, pool, 0, 0);
        tercio_run *run = submit(pool, WORK, 1, 0);
        assert_true(is_readable(tercio_run_fd(run)));
        take_one(run);
        tercio_run_close(run);
        atomic_store(&the_ledger->open[0], 1);
        end_one(&map);
    }
    tercio_close(pool);
}

/* One answer is often read just as another worker is looked after. */
static void polled_side_by_side(void **state)
{
    enum { N = 3 };
    tercio_pool *pool = open_pool(state, N);
    for (int round = 0; round < (SLOW ? 50 : 500); round++) {
        tercio_run *runs[N];
        struct pollfd asked[N];
        for (unsigned i = 0; i < N; i++) {
            item in = {.index = i, .ns = (uint64_t)(round * 7 + (int)i * 3) % 40 * 1000};
            assert_int_equal(tercio_submit(pool, WORK, (tercio_bytes){&in, sizeof in}, NULL, &runs[i]), 0);
            asked[i] = (struct pollfd){.fd = tercio_run_fd(runs[i]), .events = POLLIN};
        }
        for (unsigned left = N; left > 0;) {
            assert_true(poll(asked, N, BOUND_SECONDS / 2 * 1000) > 0);
            for (unsigned i = 0; i < N; i++) {
                tercio_result result = {.size = sizeof result};
                if (asked[i].fd < 0 || !asked[i].revents || tercio_next(runs[i], 0, &result) != 1)
                    continue;
                tercio_release(runs[i], &result);
                asked[i].fd = -1;
                left--;
            }
        }
        for (unsigned i = 0; i < N; i++)
            tercio_run_close(runs[i]);
    }
    tercio_close(pool);
}

static int next_of_two(void *user, tercio_bytes *input)
{
    static item in;
    uint32_t *left = user;
    if (*left == 0)
        return 0;
    in = (item){.index = 10 + --*left};
    *input = (tercio_bytes){&in, sizeof in};
    return 1;
}

/* A stream that is polled found no room: it is readable when there is some. */
static void polled_for_room(void **state)
{
    tercio_pool *pool = open_pool(state, 1);
    tercio_run *before[3], *run;
    tercio_result result = {.size = sizeof result};
    uint32_t left = 2;
    for (uint32_t i = 0; i < 3; i++)
        before[i] = submit(pool, GATED, i, 0);
    while (!atomic_load(&the_ledger->begun[0]))
        sched_yield();
    assert_int_equal(tercio_stream(pool, WORK, next_of_two, &left, NULL, &run), 0);
    int fd = tercio_run_fd(run);
    assert_int_equal(tercio_next(run, 0, &result), TERCIO_EAGAIN);
    atomic_store(&the_ledger->open[0], 1);
    for (uint32_t i = 0; i < 3; i++)
        take_one(before[i]);
    for (int n = 0; n < 2;) {
        assert_true(is_readable(fd));
        int found = tercio_next(run, 0, &result);
        n += found == 1;
        assert_true(found == 1 || found == TERCIO_EAGAIN);
        tercio_release(run, &result);
    }
    for (uint32_t i = 0; i < 3; i++)
        tercio_run_close(before[i]);
    tercio_run_close(run);
    tercio_close(pool);
}

static void *stream_that_stops(void *data)
{
    waiter *self = data;
    tercio_map_options options = {.size = sizeof options, .stop_on_error = true, .max_active = 2};
    tercio_result result = {.size = sizeof result};
    tercio_run *run;
    uint32_t left = 2;
    self->result = tercio_stream(self->pool, FAILING, next_of_two, &left, &options, &run);
    if (self->result)
        return NULL;
    while ((self->result = tercio_next(run, -1, &result)) == 1)
        tercio_release(run, &result);
    tercio_run_close(run);
    return NULL;
}

/* Its second item fails while the first lies behind another caller's, who sleeps and drives: it ends all the same. */
static void a_stream_that_stops_beside_a_map(void **state)
{
    tercio_pool *pool = open_pool(state, 2);
    for (int round = 0; round < (SLOW ? 20 : 150); round++) {
        waiter maps[2], stream = {.pool = pool};
        new_ledger();
        begin_one(&maps[0], pool, 0, 0);
        begin_one(&maps[1], pool, 1, 1);
        assert_int_equal(pthread_create(&stream.thread, NULL, stream_that_stops, &stream), 0);
        atomic_store(&the_ledger->open[round % 2], 1);
        pthread_join(stream.thread, NULL);
        assert_true(stream.result == 0 || stream.result == TERCIO_ECANCELED);
        atomic_store(&the_ledger->open[!(round % 2)], 1);
        end_one(&maps[0]);
        end_one(&maps[1]);
    }
    tercio_close(pool);
}

/* ---- Finishing beside others ------------------------------------------------------------------------------------- */

static void two_finish(void **state)
{
    for (int round = 0; round < (SLOW ? 5 : 20); round++) {
        tercio_pool *pool = open_pool(state, 2);
        helper finishers[2] = {{.pool = pool}, {.pool = pool}};
        new_ledger();
        tercio_run *run = submit(pool, GATED, 0, 0);
        for (int i = 0; i < 2; i++)
            assert_int_equal(pthread_create(&finishers[i].thread, NULL, finish_it, &finishers[i]), 0);
        while (!atomic_load(&the_ledger->begun[0]))
            sched_yield();
        atomic_store(&the_ledger->open[0], 1);
        for (int i = 0; i < 2; i++) {
            pthread_join(finishers[i].thread, NULL);
            assert_int_equal(finishers[i].result, 0);
        }
        tercio_run_close(run);
        tercio_close(pool);
    }
}

static void *map_until_closed(void *data)
{
    helper *self = data;
    do {
        self->n = 1;
        map_often(self);
    } while (self->result == 0);
    return NULL;
}

/* A caller that has nothing under way, and sleeps until there is room, learns that no more is taken. */
static void finished_while_others_go_on(void **state)
{
    enum { CALLERS = 3 };
    for (int round = 0; round < (SLOW ? 10 : 40); round++) {
        tercio_pool *pool = open_pool(state, 2);
        helper helpers[CALLERS];
        for (int i = 0; i < CALLERS; i++) {
            helpers[i] = (helper){.pool = pool};
            assert_int_equal(pthread_create(&helpers[i].thread, NULL, map_until_closed, &helpers[i]), 0);
        }
        assert_int_equal(tercio_finish(pool, 0, NULL, NULL), 0);
        for (int i = 0; i < CALLERS; i++) {
            pthread_join(helpers[i].thread, NULL);
            assert_int_equal(helpers[i].result, TERCIO_ECLOSED);
        }
        tercio_close(pool);
    }
}

static volatile sig_atomic_t n_signals;

static void count_signal(int number)
{
    (void)number;
    n_signals++;
}

/* A signal that is held back until the engine sleeps ends the wait, and the next call goes on with it. */
static void a_signal_ends_the_wait_for_the_end(void **state)
{
    struct sigaction count = {.sa_handler = count_signal}, usual;
    sigset_t held, before;
    tercio_run *run;
    tercio_pool *pool = open_pool(state, 1);
    item in = {.index = 0};
    new_ledger();
    assert_int_equal(sigaction(SIGUSR1, &count, &usual), 0);
    assert_int_equal(tercio_submit(pool, GATED, (tercio_bytes){&in, sizeof in}, NULL, &run), 0);
    sigemptyset(&held);
    sigaddset(&held, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &held, &before);
    n_signals = 0;
    for (int i = 1; i <= 2; i++) {
        raise(SIGUSR1);
        assert_int_equal(tercio_finish_masked(pool, BOUND_SECONDS / 2, &before, NULL, NULL), TERCIO_EINTERRUPTED);
        assert_int_equal(n_signals, i);
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    sigaction(SIGUSR1, &usual, NULL);
    atomic_store(&the_ledger->open[0], 1);
    assert_int_equal(tercio_finish(pool, 0, NULL, NULL), 0);
    tercio_run_close(run);
    tercio_close(pool);
}

int main(int argc, char **argv)
{
    static const battery_test tests[] = {
        BATTERY_TEST(drivers_take_turns),
        BATTERY_TEST(short_items_beside_a_long_one),
        BATTERY_TEST(who_leaves_passes_on),
        BATTERY_TEST(finished_while_others_wait),
        BATTERY_TEST(interrupted),
        BATTERY_TEST(polled_beside_a_map),
        BATTERY_TEST(polled_side_by_side),
        BATTERY_TEST(polled_for_room),
        BATTERY_TEST(a_stream_that_stops_beside_a_map),
        BATTERY_TEST(two_finish),
        BATTERY_TEST(finished_while_others_go_on),
        BATTERY_TEST(a_signal_ends_the_wait_for_the_end),
    };
    tercio_worker_entry(argc, argv, &table);
    return run_battery("callers", tests, sizeof tests / sizeof *tests, argc > 1 ? argv[1] : NULL);
}
