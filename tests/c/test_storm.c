/* SPDX-License-Identifier: MIT
 *
 * Workers that are killed, stopped and replaced at random moments while they work: each item's answer comes once and
 * is right, and what is lost is what was killed.
 */
#include "battery.h"

/* ---- A thread that kills ----------------------------------------------------------------------------------------- */

enum { MOST_WORKERS = 8 };

typedef struct {
    tercio_pool *pool;
    pthread_t thread;
    _Atomic bool stops;
    int how;                /* the signal; SIGSTOP: let go on afterwards, or killed */
    uint64_t seed, most_ns; /* between two strikes */
    unsigned kills;
    int n_young[MOST_WORKERS]; /* killed before they were seen to live: three in a row are a pool's failure */
} killer;

/* The moments are random, and nothing waits for them. */
static void pause_at_random(uint64_t *random, uint64_t most_ns)
{
    struct timespec moment = {.tv_nsec = (long)(next_random(random) % most_ns)};
    nanosleep(&moment, NULL);
}

static void strike(killer *self, unsigned n)
{
    tercio_stats stats[MOST_WORKERS];
    stats[0].size = sizeof *stats;
    if (tercio_get_stats(self->pool, stats, n) < 0)
        return;
    unsigned i = (unsigned)(next_random(&self->seed) % n);
    int pid = stats[i].pid;
    if (pid == 0)
        return;
    bool lives = stats[i].state == TERCIO_STATE_WORK || stats[i].state == TERCIO_STATE_WAIT;
    if (lives)
        self->n_young[i] = 0;
    else if (self->n_young[i] > 0)
        return;
    else
        self->n_young[i]++;
    if (self->how == SIGSTOP) {
        kill(pid, SIGSTOP);
        pause_at_random(&self->seed, 2000000);
        kill(pid, next_random(&self->seed) % 2 ? SIGCONT : SIGKILL);
    } else {
        kill(pid, self->how);
    }
    self->kills++;
}

static void *kill_at_random(void *data)
{
    killer *self = data;
    int n = tercio_worker_pids(self->pool, NULL, 0);
    while (!atomic_load(&self->stops)) {
        strike(self, (unsigned)n);
        pause_at_random(&self->seed, self->most_ns);
    }
    return NULL;
}

/* An item must be able to end between two strikes, or nothing would. */
enum { OFTEN = SLOW ? 20000000 : 4000000, SELDOM = SLOW ? 400000000 : 60000000 };

static void start_killing(killer *self, tercio_pool *pool, int how, uint64_t most_ns)
{
    *self = (killer){.pool = pool, .how = how, .seed = nanoseconds() | 1, .most_ns = most_ns};
    assert_int_equal(pthread_create(&self->thread, NULL, kill_at_random, self), 0);
}

static void stop_killing(killer *self)
{
    atomic_store(&self->stops, true);
    pthread_join(self->thread, NULL);
}

/* ---- Maps under fire --------------------------------------------------------------------------------------------- */

enum { N = SLOW ? 600 : 3000 };
static const size_t chunks[] = {1, 7, 64};

static void map_with_retries(void **state, int how)
{
    skip_threads(state);
    for (size_t k = 0; k < sizeof chunks / sizeof *chunks; k++) {
        tercio_pool *pool = open_pool(state, 3);
        item *in = items_of(N, 40000);
        uint64_t *out = calloc(N, sizeof *out);
        tercio_map_options options = {.size = sizeof options, .chunk = chunks[k], .retries = 1000};
        tercio_result first = {.size = sizeof first};
        killer enemy;
        new_ledger();
        start_killing(&enemy, pool, how, OFTEN);
        int failed = tercio_map(pool, WORK, in, sizeof *in, N, out, &options, &first);
        stop_killing(&enemy);
        if (failed)
            print_error("chunk %zu: %d, item %d: %s: %s\n", chunks[k], failed, (int)first.index,
                        tercio_error_text(first.status), first.message);
        assert_int_equal(failed, 0);
        for (size_t i = 0; i < N; i++) {
            assert_int_equal(out[i], i * 3 + 1);
            assert_true(the_ledger->ended[i] >= 1);
        }
        still_works(pool);
        tercio_close(pool);
        free(in);
        free(out);
    }
}

static void killed_and_retried(void **state)
{
    map_with_retries(state, SIGKILL);
}

static void stopped_and_killed(void **state)
{
    map_with_retries(state, SIGSTOP);
}

/* Without retries an item fails if its worker was killed while it ran, and no other does; none is run twice. */
static void killed_without_retries(void **state)
{
    skip_threads(state);
    for (size_t k = 0; k < sizeof chunks / sizeof *chunks; k++) {
        tercio_pool *pool = open_pool(state, 3);
        item *in = items_of(N, 40000);
        uint64_t *out = calloc(N, sizeof *out);
        tercio_map_options options = {.size = sizeof options, .chunk = chunks[k]};
        tercio_result first = {.size = sizeof first};
        killer enemy;
        new_ledger();
        start_killing(&enemy, pool, SIGKILL, OFTEN);
        int failed = tercio_map(pool, WORK, in, sizeof *in, N, out, &options, &first);
        stop_killing(&enemy);
        assert_in_range(failed, 0, enemy.kills);
        int missing = 0;
        for (size_t i = 0; i < N; i++) {
            assert_in_range(the_ledger->begun[i], 0, 1);
            missing += out[i] == 0;
            if (out[i] != 0) {
                assert_int_equal(out[i], i * 3 + 1);
                assert_int_equal(the_ledger->ended[i], 1);
            }
        }
        assert_int_equal(missing, failed);
        if (failed) {
            assert_int_equal(out[first.index], 0);
            assert_int_equal(first.status, TERCIO_EDIED);
            assert_int_equal(first.signal, SIGKILL);
        }
        still_works(pool);
        tercio_close(pool);
        free(in);
        free(out);
    }
}

/* ---- Tasks that end their worker ----------------------------------------------------------------------------------- */

typedef struct {
    const item *in;
    size_t n, at;
} source;

static int next_item(void *user, tercio_bytes *input)
{
    source *from = user;
    if (from->at == from->n)
        return 0;
    *input = (tercio_bytes){&from->in[from->at++], sizeof *from->in};
    return 1;
}

static void check_end(const tercio_result *result, uint32_t how, unsigned attempts)
{
    assert_int_equal(result->status, TERCIO_EDIED);
    assert_int_equal(result->attempts, attempts);
    assert_int_equal(result->signal, how == BY_KILL    ? SIGKILL
                                     : how == BY_SEGV  ? SIGSEGV
                                     : how == BY_ABORT ? SIGABRT
                                                       : 0);
    assert_int_equal(result->code, how == BY_EXIT_0 ? 0 : how == BY_EXIT_3 ? 3 : -1);
    assert_true(result->pid > 0);
}

static void tasks_that_end_their_worker(void **state)
{
    enum { MANY = SLOW ? 60 : 200 };
    skip_threads(state);
    tercio_pool *pool = open_pool(state, 2);
    item *in = items_of(MANY, 0);
    for (size_t i = 3; i < MANY; i += 10)
        in[i].how = BY_KILL + (uint32_t)(i / 10 % 5);
    in[4].how = BY_EXIT_0; /* side by side in one message */
    for (unsigned retries = 0; retries < 3; retries += 2)
        for (size_t k = 0; k < sizeof chunks / sizeof *chunks; k++) {
            tercio_map_options options = {.size = sizeof options, .chunk = chunks[k], .retries = retries};
            source from = {in, MANY, 0};
            tercio_run *run;
            tercio_result result = {.size = sizeof result};
            new_ledger();
            assert_int_equal(tercio_stream(pool, HOW, next_item, &from, &options, &run), 0);
            for (size_t i = 0; i < MANY; i++) {
                assert_int_equal(tercio_next(run, BOUND_SECONDS, &result), 1);
                assert_int_equal(result.index, i);
                if (in[i].how) {
                    check_end(&result, in[i].how, retries + 1);
                } else {
                    uint64_t answer = 0;
                    assert_int_equal(result.status, 0);
                    assert_int_equal(result.out.size, sizeof answer);
                    memcpy(&answer, result.out.data, sizeof answer);
                    assert_int_equal(answer, i * 3 + 1);
                    assert_int_equal(the_ledger->begun[i], 1);
                }
                tercio_release(run, &result);
            }
            assert_int_equal(tercio_next(run, BOUND_SECONDS, &result), 0);
            tercio_run_close(run);
        }
    still_works(pool);
    tercio_close(pool);
    free(in);
}

/* ---- Workers that are idle ------------------------------------------------------------------------------------------ */

static void idle_workers_killed(void **state)
{
    skip_threads(state);
    tercio_pool *pool = open_pool(state, 2);
    int pids[2];
    for (int round = 0; round < (SLOW ? 20 : 100); round++) {
        /* A worker that has worked has lived: it counts as no failure to start. */
        still_works(pool);
        assert_int_equal(tercio_worker_pids(pool, pids, 2), 2);
        for (int i = 0; i < 2; i++)
            if (pids[i] && (round % 3 != 0 || i == 0))
                kill(pids[i], SIGKILL);
        still_works(pool);
        tercio_stats stats[2] = {{.size = sizeof *stats}, {.size = sizeof *stats}};
        do
            tercio_get_stats(pool, stats, 2);
        while (stats[0].state == TERCIO_STATE_START || stats[1].state == TERCIO_STATE_START || stats[0].pid == 0 ||
               stats[1].pid == 0);
    }
    tercio_close(pool);
}

/* ---- Lives that are short -------------------------------------------------------------------------------------------- */

static void short_lives(void **state)
{
    enum { MANY = SLOW ? 30 : 100 };
    static const unsigned lives[] = {1, 5};
    for (size_t k = 0; k < 2; k++)
        for (size_t chunk = 1; chunk < 4; chunk += 2) {
            tercio_pool *pool = open_pool(state, 2);
            item *in = items_of(MANY, 0);
            uint64_t out[MANY];
            tercio_map_options options = {.size = sizeof options, .chunk = chunk, .lifespan = lives[k]};
            new_ledger();
            assert_int_equal(tercio_map(pool, WORK, in, sizeof *in, MANY, out, &options, NULL), 0);
            for (size_t i = 0; i < MANY; i++) {
                assert_int_equal(out[i], i * 3 + 1);
                assert_int_equal(the_ledger->begun[i], 1);
            }
            assert_int_equal(tercio_finish(pool, 0, NULL, NULL), 0);
            assert_true(the_ledger->exits >= MANY / (lives[k] + chunk));
            tercio_close(pool);
            free(in);
        }
}

static void lifespans_end_with_their_run(void **state)
{
    tercio_pool *pool = open_pool(state, 1);
    tercio_stats stats = {.size = sizeof stats};
    item *in = items_of(20, 0);
    uint64_t out[20];
    tercio_map_options options = {.size = sizeof options, .chunk = 1, .lifespan = 2};
    assert_int_equal(tercio_map(pool, WORK, in, sizeof *in, 20, out, &options, NULL), 0);
    still_works(pool);
    tercio_get_stats(pool, &stats, 1);
    uint64_t restarts = stats.restarts;
    for (int i = 0; i < 3; i++)
        still_works(pool);
    tercio_get_stats(pool, &stats, 1);
    assert_int_equal(stats.restarts, restarts);
    tercio_close(pool);
    free(in);
}

static void short_lives_under_fire(void **state)
{
    skip_threads(state);
    tercio_pool *pool = open_pool(state, 3);
    item *in = items_of(N, 20000);
    uint64_t *out = calloc(N, sizeof *out);
    tercio_map_options options = {.size = sizeof options, .chunk = 5, .retries = 1000, .lifespan = 50};
    killer enemy;
    start_killing(&enemy, pool, SIGKILL, OFTEN);
    assert_int_equal(tercio_map(pool, WORK, in, sizeof *in, N, out, &options, NULL), 0);
    stop_killing(&enemy);
    for (size_t i = 0; i < N; i++)
        assert_int_equal(out[i], i * 3 + 1);
    tercio_close(pool);
    free(in);
    free(out);
}

/* ---- Large payloads -------------------------------------------------------------------------------------------------- */

enum { LEAST_LARGE = 256 << 10, MOST_LARGE = 4 << 20 };

typedef struct {
    unsigned char *bytes;
    uint64_t random, at, n;
    size_t sizes[256];
} large_source;

static int next_large(void *user, tercio_bytes *input)
{
    large_source *from = user;
    if (from->at == from->n)
        return 0;
    size_t size = LEAST_LARGE + (size_t)(next_random(&from->random) % (MOST_LARGE - LEAST_LARGE));
    from->sizes[from->at] = size;
    fill_pattern(from->bytes, size, from->at++);
    *input = (tercio_bytes){from->bytes, size};
    return 1;
}

/* What the pool's nameless file holds; the only one of its kind that this process has open. */
static uint64_t bytes_of_pool_file(void)
{
    char path[64], target[256];
    uint64_t bytes = 0;
    for (int fd = 3; fd < 256; fd++) {
        struct stat info;
        (void)snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        ssize_t n = readlink(path, target, sizeof target - 1);
        if (n <= 0)
            continue;
        target[n] = '\0';
        if (strstr(target, "memfd:") && fstat(fd, &info) == 0)
            bytes += (uint64_t)info.st_blocks * 512;
    }
    return bytes;
}

static void stream_large(tercio_pool *pool, large_source *from, uint64_t n, const tercio_map_options *options)
{
    tercio_run *run;
    tercio_result result = {.size = sizeof result};
    from->at = 0;
    from->n = n;
    assert_int_equal(tercio_stream(pool, PATTERN, next_large, from, options, &run), 0);
    for (uint64_t i = 0; i < n; i++) {
        assert_int_equal(tercio_next(run, BOUND_SECONDS, &result), 1);
        if (result.status)
            print_error("item %d: %s: %s\n", (int)i, tercio_error_text(result.status), result.message);
        assert_int_equal(result.status, 0);
        assert_int_equal(result.index, i);
        assert_int_equal(result.out.size, from->sizes[i]);
        assert_true(is_pattern(result.out.data, result.out.size, i + 1000));
        tercio_release(run, &result);
    }
    assert_int_equal(tercio_next(run, BOUND_SECONDS, &result), 0);
    tercio_run_close(run);
}

static void large_payloads_under_fire(void **state)
{
    enum { ROUNDS = SLOW ? 3 : 4, A_ROUND = SLOW ? 8 : 24 };
    skip_threads(state);
    tercio_pool *pool = open_pool(state, 2);
    large_source *from = calloc(1, sizeof *from);
    tercio_map_options options = {.size = sizeof options, .chunk = 1, .retries = 1000};
    uint64_t held[ROUNDS];
    unsigned kills = 0;
    from->bytes = malloc(MOST_LARGE);
    for (int round = 0; round < ROUNDS; round++) {
        killer enemy;
        from->random = 4711 + (uint64_t)round;
        options.chunk = round % 2 ? 3 : 1;
        start_killing(&enemy, pool, SIGKILL, SELDOM);
        stream_large(pool, from, A_ROUND, &options);
        stop_killing(&enemy);
        kills += enemy.kills;
        stream_large(pool, from, 8, &options);
        held[round] = bytes_of_pool_file();
    }
    /* The memory of dead workers comes back. Under fork each replacement may leave a block behind: what this process
     * reads while it forks is the child's too, and so is never reused. */
    uint64_t least = held[0] < held[1] ? held[0] : held[1], most = least + (UINT64_C(96) << 20);
    if (method_of(state) == TERCIO_FORK)
        most += (uint64_t)kills * 2 * MOST_LARGE;
    for (int round = 0; round < ROUNDS; round++)
        if (held[round] > most) {
            print_error("round %d: %d MiB, at least %d\n", round, (int)(held[round] >> 20), (int)(least >> 20));
            fail();
        }
    tercio_close(pool);
    free(from->bytes);
    free(from);
}

/* ---- Several callers --------------------------------------------------------------------------------------------------- */

typedef struct {
    tercio_pool *pool;
    pthread_t thread;
    size_t chunk;
    bool good;
} caller;

static void *map_as_a_caller(void *data)
{
    caller *self = data;
    item *in = items_of(N, 20000);
    uint64_t *out = calloc(N, sizeof *out);
    tercio_map_options options = {.size = sizeof options, .chunk = self->chunk, .retries = 1000};
    self->good = tercio_map(self->pool, WORK, in, sizeof *in, N, out, &options, NULL) == 0;
    for (size_t i = 0; i < N; i++)
        self->good &= out[i] == i * 3 + 1;
    free(in);
    free(out);
    return NULL;
}

static void several_callers_under_fire(void **state)
{
    enum { CALLERS = 3 };
    skip_threads(state);
    tercio_pool *pool = open_pool(state, 2);
    caller callers[CALLERS];
    killer enemy;
    start_killing(&enemy, pool, SIGKILL, OFTEN);
    for (int i = 0; i < CALLERS; i++) {
        callers[i] = (caller){.pool = pool, .chunk = chunks[i]};
        assert_int_equal(pthread_create(&callers[i].thread, NULL, map_as_a_caller, &callers[i]), 0);
    }
    for (int i = 0; i < CALLERS; i++)
        pthread_join(callers[i].thread, NULL);
    stop_killing(&enemy);
    for (int i = 0; i < CALLERS; i++)
        assert_true(callers[i].good);
    tercio_close(pool);
}

int main(int argc, char **argv)
{
    static const battery_test tests[] = {
        BATTERY_TEST(killed_and_retried),           BATTERY_TEST(stopped_and_killed),
        BATTERY_TEST(killed_without_retries),       BATTERY_TEST(tasks_that_end_their_worker),
        BATTERY_TEST(idle_workers_killed),          BATTERY_TEST(short_lives),
        BATTERY_TEST(lifespans_end_with_their_run), BATTERY_TEST(short_lives_under_fire),
        BATTERY_TEST(large_payloads_under_fire),    BATTERY_TEST(several_callers_under_fire),
    };
    tercio_worker_entry(argc, argv, &table);
    return run_battery("storm", tests, sizeof tests / sizeof *tests, argc > 1 ? argv[1] : NULL);
}
