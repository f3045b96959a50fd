/* SPDX-License-Identifier: MIT
 *
 * The C face: opening, tercio_map, errors, deaths, retries, state and shared memory, under every start method.
 */
#include "face_tasks.h"

#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

static int64_t *numbers(size_t n)
{
    int64_t *made = calloc(n + 1, sizeof *made);
    for (size_t i = 0; i < n; i++)
        made[i] = (int64_t)i;
    return made;
}

/* ---- Map ------------------------------------------------------------------------------------------------------------ */

static void map_doubles(tercio_pool *pool, size_t n, const tercio_map_options *options)
{
    int64_t *in = numbers(n), *out = calloc(n + 1, sizeof *out);
    tercio_result first = {.size = sizeof first};
    assert_int_equal(tercio_map(pool, DOUBLE, in, sizeof *in, n, out, options, &first), 0);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(out[i], 2 * (int64_t)i);
    free(in);
    free(out);
}

static void map_of_all_sizes(void **state)
{
    static const size_t sizes[] = {0, 1, 2, 3, 1000, 20000};
    static const size_t chunks[] = {0, 1, 7, 1000, 5000};
    tercio_pool *pool = open_pool(state, 2);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (size_t k = 0; k < sizeof chunks / sizeof *chunks; k++) {
            tercio_map_options options = {.size = sizeof options, .chunk = chunks[k]};
            map_doubles(pool, sizes[i], &options);
        }
    map_doubles(pool, 100, NULL);
    tercio_close(pool);
}

/* What is replied is nobody's, where an answer has no place; that it came counts. */
static void replies_without_a_place(void **state)
{
    static const size_t chunks[] = {0, 1, 50};
    enum { N = 2000 };
    tercio_pool *pool = open_pool(state, 2);
    int64_t *in = numbers(N);
    for (size_t k = 0; k < sizeof chunks / sizeof *chunks; k++) {
        tercio_map_options options = {.size = sizeof options, .chunk = chunks[k]};
        assert_int_equal(tercio_map(pool, ECHO, in, sizeof *in, N, NULL, &options, NULL), 0);
    }
    free(in);
    tercio_close(pool);
}

/* Answers that fill no word, side by side: none is written over its neighbour. */
static void answers_of_odd_sizes(void **state)
{
    static const size_t chunks[] = {0, 1, 50};
    enum { N = 3001 };
    tercio_pool *pool = open_pool(state, 2);
    int64_t *in = numbers(N);
    unsigned char(*out)[ODD_OUT] = malloc((N + 1) * sizeof *out);
    for (size_t k = 0; k < sizeof chunks / sizeof *chunks; k++) {
        tercio_map_options options = {.size = sizeof options, .chunk = chunks[k]};
        memset(out, 0xee, (N + 1) * sizeof *out);
        assert_int_equal(tercio_map(pool, ODD, in, sizeof *in, N, out, &options, NULL), 0);
        for (int i = 0; i < N; i++)
            for (int b = 0; b < ODD_OUT; b++)
                assert_int_equal(out[i][b], b < 3 ? (unsigned char)(i * 7 + b) : 0); /* the rest came zeroed */
        assert_int_equal(out[N][0], 0xee);
    }
    free(in);
    free(out);
    tercio_close(pool);
}

static void more_workers_than_items(void **state)
{
    tercio_pool *pool = open_pool(state, 5);
    for (size_t n = 0; n < 4; n++)
        map_doubles(pool, n, NULL);
    tercio_close(pool);
}

static void few_at_a_time(void **state)
{
    tercio_pool *pool = open_pool(state, 3);
    for (size_t active = 1; active < 12; active++) {
        tercio_map_options options = {.size = sizeof options, .max_active = active, .chunk = active % 4};
        map_doubles(pool, 300, &options);
    }
    tercio_close(pool);
}

static void items_of_no_size(void **state)
{
    enum { N = 50 };
    tercio_pool *pool = open_pool(state, 2);
    place out[N] = {{0}};
    assert_int_equal(tercio_map(pool, WHERE, NULL, 0, N, out, NULL, NULL), 0);
    for (int i = 0; i < N; i++) {
        assert_true(out[i].worker < 2);
        assert_true((out[i].pid == getpid()) == (method_of(state) == TERCIO_THREADING));
    }
    tercio_close(pool);
}

static void large_items_and_answers(void **state)
{
    enum { N = 40 };
    tercio_pool *pool = open_pool(state, 2);
    unsigned char *in = malloc((size_t)N * LARGE_IN), *out = calloc(N, LARGE_OUT);
    for (size_t chunk = 1; chunk < 20; chunk += 6) {
        tercio_map_options options = {.size = sizeof options, .chunk = chunk};
        for (size_t i = 0; i < N; i++)
            memset(in + i * LARGE_IN, (int)(i + chunk), LARGE_IN);
        assert_int_equal(tercio_map(pool, LARGE, in, LARGE_IN, N, out, &options, NULL), 0);
        for (size_t i = 0; i < N; i++) {
            assert_int_equal(out[i * LARGE_OUT], i + chunk + 1);
            assert_int_equal(out[i * LARGE_OUT + LARGE_OUT - 1], i + chunk + 1);
        }
    }
    free(in);
    free(out);
    tercio_close(pool);
}

static void count_progress(void *user, uint64_t done, uint64_t total)
{
    uint64_t *seen = user;
    assert_true(done > *seen || total == 0);
    assert_true(done <= total);
    *seen = done;
}

static void progress_reaches_its_total(void **state)
{
    tercio_pool *pool = open_pool(state, 2);
    uint64_t seen = 0;
    tercio_map_options options = {.size = sizeof options, .progress = count_progress, .user = &seen};
    map_doubles(pool, 5000, &options);
    assert_int_equal(seen, 5000);
    tercio_close(pool);
}

typedef struct {
    tercio_pool *pool;
    bool good;
} mapper;

static void *map_in_a_thread(void *argument)
{
    mapper *self = argument;
    int64_t *in = numbers(3000), *out = calloc(3000, sizeof *out);
    tercio_map_options options = {.size = sizeof options, .chunk = 3};
    self->good = tercio_map(self->pool, DOUBLE, in, sizeof *in, 3000, out, &options, NULL) == 0;
    for (int64_t i = 0; i < 3000; i++)
        self->good &= out[i] == 2 * i;
    free(in);
    free(out);
    return NULL;
}

static void several_threads_map_at_once(void **state)
{
    enum { N = 4 };
    tercio_pool *pool = open_pool(state, 2);
    mapper mappers[N];
    pthread_t threads[N];
    for (int i = 0; i < N; i++) {
        mappers[i] = (mapper){.pool = pool};
        assert_int_equal(pthread_create(&threads[i], NULL, map_in_a_thread, &mappers[i]), 0);
    }
    for (int i = 0; i < N; i++) {
        pthread_join(threads[i], NULL);
        assert_true(mappers[i].good);
    }
    tercio_close(pool);
}

static atomic_int signals_seen;

static void count_signal(int signal)
{
    (void)signal;
    atomic_fetch_add(&signals_seen, 1);
}

/* Handlers of the application run while it waits, and end nothing. */
static void signals_do_not_end_a_map(void **state)
{
    struct sigaction action = {.sa_handler = count_signal}, before;
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
    struct itimerspec every = {.it_interval = {0, 300000}, .it_value = {0, 300000}};
    tercio_map_options options = {.size = sizeof options, .chunk = 1, .max_active = 1};
    timer_t timer;
    tercio_pool *pool = open_pool(state, 1);
    assert_int_equal(sigaction(SIGUSR1, &action, &before), 0);
    assert_int_equal(timer_create(CLOCK_MONOTONIC, &event, &timer), 0);
    assert_int_equal(timer_settime(timer, 0, &every, NULL), 0);
    atomic_store(&signals_seen, 0);
    while (atomic_load(&signals_seen) < 30)
        map_doubles(pool, 1000, &options);
    timer_delete(timer);
    sigaction(SIGUSR1, &before, NULL);
    tercio_close(pool);
}

/* ---- Errors --------------------------------------------------------------------------------------------------------- */

static void errors_have_code_and_message(void **state)
{
    enum { N = 100 };
    tercio_pool *pool = open_pool(state, 2);
    int64_t *in = numbers(N), out[N];
    for (size_t chunk = 1; chunk <= 50; chunk += 49) {
        tercio_map_options options = {.size = sizeof options, .chunk = chunk};
        tercio_result first = {.size = sizeof first};
        memset(out, -1, sizeof out);
        assert_int_equal(tercio_map(pool, FAIL_THIRDS, in, sizeof *in, N, out, &options, &first), N / 3);
        assert_int_equal(first.index, 2);
        assert_int_equal(first.status, TERCIO_EFAILED);
        assert_int_equal(first.code, 7);
        assert_int_equal(first.attempts, 1);
        assert_string_equal(first.message, "2 is no good");
        for (int i = 0; i < N; i++)
            assert_int_equal(out[i], i % 3 == 2 ? -1 : 2 * i); /* failed items leave their place alone */
        assert_int_equal(tercio_map(pool, FAIL_THIRDS, in, sizeof *in, N, out, &options, NULL), N / 3);
    }
    free(in);
    tercio_close(pool);
}

static void stop_on_error(void **state)
{
    enum { N = 100000 };
    tercio_pool *pool = open_pool(state, 2);
    int64_t *in = numbers(N), *out = calloc(N, sizeof *out);
    tercio_map_options options = {.size = sizeof options, .chunk = 1, .stop_on_error = true};
    tercio_result first = {.size = sizeof first};
    int failed = tercio_map(pool, FAIL_THIRDS, in, sizeof *in, N, out, &options, &first);
    assert_true(failed > N / 2); /* what did not run counts */
    assert_int_equal(first.status, TERCIO_EFAILED);
    assert_int_equal(first.index % 3, 2);
    map_doubles(pool, 1000, NULL);
    free(in);
    free(out);
    tercio_close(pool);
}

static void deaths_cost_their_item_alone(void **state)
{
    enum { N = 60 };
    skip_threads(state);
    tercio_pool *pool = open_pool(state, 2);
    int64_t in[N] = {0}, out[N] = {0};
    in[10] = BY_SIGNAL;
    in[11] = BY_EXIT;
    in[40] = BY_ABORT;
    for (size_t chunk = 1; chunk <= 20; chunk += 19) {
        tercio_map_options options = {.size = sizeof options, .chunk = chunk};
        tercio_result first = {.size = sizeof first};
        memset(out, 0, sizeof out);
        assert_int_equal(tercio_map(pool, DIE, in, sizeof *in, N, out, &options, &first), 3);
        assert_int_equal(first.index, 10);
        assert_int_equal(first.status, TERCIO_EDIED);
        assert_int_equal(first.signal, SIGKILL);
        assert_true(first.pid > 0);
        assert_true(first.message[0] != '\0');
        for (int i = 0; i < N; i++)
            assert_int_equal(out[i], in[i] == LIVE);
    }
    in[10] = LIVE;
    tercio_result first = {.size = sizeof first};
    assert_int_equal(tercio_map(pool, DIE, in, sizeof *in, N, out, NULL, &first), 2);
    assert_int_equal(first.index, 11);
    assert_int_equal(first.signal, 0);
    assert_int_equal(first.code, 9);
    tercio_close(pool);
}

static void retries_run_it_again(void **state)
{
    skip_threads(state);
    tercio_pool *pool = open_pool(state, 2);
    char folder[] = "/tmp/face-XXXXXX", path[64];
    assert_non_null(mkdtemp(folder));
    (void)snprintf(path, sizeof path, "%s/once", folder);
    tercio_map_options options = {.size = sizeof options, .retries = 1};
    tercio_result first = {.size = sizeof first};
    assert_int_equal(tercio_map(pool, FLAKY, path, sizeof path, 1, NULL, &options, &first), 0);
    unlink(path);
    assert_int_equal(tercio_map(pool, FLAKY, path, sizeof path, 1, NULL, NULL, &first), 1);
    assert_int_equal(first.status, TERCIO_EDIED);
    unlink(path);
    rmdir(folder);

    int64_t how = BY_EXIT, out;
    options.retries = 3;
    assert_int_equal(tercio_map(pool, DIE, &how, sizeof how, 1, &out, &options, &first), 1);
    assert_int_equal(first.attempts, 4);
    tercio_close(pool);
}

/* ---- State, exit, shared memory -------------------------------------------------------------------------------------- */

typedef struct {
    int n, failed;
    int64_t sum;
    char message[256];
} exits;

static void on_exit_result(void *user, const tercio_result *result)
{
    exits *seen = user;
    assert_int_equal(result->kind, TERCIO_KIND_EXIT);
    seen->n++;
    if (result->status) {
        seen->failed++;
        assert_int_equal(result->code, 6);
        strcpy(seen->message, result->message);
        return;
    }
    int64_t n;
    assert_int_equal(result->out.size, sizeof n);
    memcpy(&n, result->out.data, sizeof n);
    seen->sum += n;
}

static void state_lives_from_init_to_exit(void **state)
{
    enum { N = 500 };
    tercio_pool *pool = open_pool(state, 2);
    int64_t out[N];
    exits seen = {0};
    tercio_map_options options = {.size = sizeof options, .chunk = 2};
    assert_int_equal(tercio_map(pool, COUNT, NULL, 0, N, out, &options, NULL), 0);
    assert_int_equal(tercio_finish(pool, 0, on_exit_result, &seen), 0);
    assert_in_range(seen.n, 1, 2); /* a worker that did nothing has nothing to leave */
    assert_int_equal(seen.sum, N);
    assert_int_equal(tercio_map(pool, COUNT, NULL, 0, N, out, &options, NULL), TERCIO_ECLOSED);
    tercio_close(pool);
}

static void exit_may_fail(void **state)
{
    exits seen = {0};
    int64_t out[4];
    setenv("FACE_TEST_EXIT", "fail", 1);
    tercio_pool *pool = open_pool(state, 1);
    assert_int_equal(tercio_map(pool, COUNT, NULL, 0, 4, out, NULL, NULL), 0);
    assert_int_equal(tercio_finish(pool, 0, on_exit_result, &seen), 0);
    unsetenv("FACE_TEST_EXIT");
    assert_int_equal(seen.failed, 1);
    assert_string_equal(seen.message, "exit does not want to");
    tercio_close(pool);
}

static void init_may_fail(void **state)
{
    int64_t out[4];
    tercio_result first = {.size = sizeof first};
    setenv("FACE_TEST_INIT", "fail", 1);
    tercio_pool *pool = open_pool(state, 1);
    assert_int_equal(tercio_map(pool, COUNT, NULL, 0, 4, out, NULL, &first), TERCIO_ESTART);
    unsetenv("FACE_TEST_INIT");
    assert_int_equal(first.kind, TERCIO_KIND_INIT);
    assert_int_equal(first.code, 5);
    assert_string_equal(first.message, "init of worker 0 does not want to");
    tercio_close(pool);
}

static void workers_are_replaced_after_their_lifespan(void **state)
{
    enum { N = 40 };
    tercio_pool *pool = open_pool(state, 2);
    int64_t out[N];
    exits seen = {0};
    tercio_map_options options = {.size = sizeof options, .lifespan = 5, .chunk = 1};
    assert_int_equal(tercio_map(pool, COUNT, NULL, 0, N, out, &options, NULL), 0);
    for (int i = 0; i < N; i++)
        assert_in_range(out[i], 1, 5);
    assert_int_equal(tercio_finish(pool, 0, on_exit_result, &seen), 0);
    assert_int_equal(seen.sum, N);
    tercio_close(pool);
}

static void shared_memory(void **state)
{
    enum { SIZE = 3 << 20 };
    tercio_pool *pool = open_pool(state, 2);
    char *bytes = malloc(SIZE);
    uint32_t ids[2];
    share_answer out[20];
    memset(bytes, 'A', SIZE);
    assert_int_equal(tercio_share(pool, TERCIO_READONLY, (tercio_bytes){bytes, SIZE}, &ids[0]), 0);
    memset(bytes, 'a', SIZE);
    assert_int_equal(tercio_share(pool, TERCIO_COPY_ON_WRITE, (tercio_bytes){bytes, SIZE}, &ids[1]), 0);
    memset(bytes, 0, SIZE); /* the pool has copies */
    free(bytes);

    share_question asked[20];
    for (int i = 0; i < 20; i++)
        asked[i] = (share_question){ids[0], 0};
    assert_int_equal(tercio_map(pool, SHARED, asked, sizeof *asked, 20, out, NULL, NULL), 0);
    for (int i = 0; i < 20; i++) {
        assert_int_equal(out[i].size, SIZE);
        assert_int_equal(out[i].first, 'A');
    }
    for (int i = 0; i < 20; i++)
        asked[i] = (share_question){ids[1], 1};
    assert_int_equal(tercio_map(pool, SHARED, asked, sizeof *asked, 20, out, NULL, NULL), 0);
    int largest = 0;
    for (int i = 0; i < 20; i++) {
        assert_int_equal(out[i].own, out[i].first + 1); /* it sees what it wrote */
        largest = out[i].own > largest ? out[i].own : largest;
    }
    assert_true(largest <= 'a' + 20);
    if (method_of(state) != TERCIO_THREADING) {
        /* Each worker begins with the original, so two of them can't have seen all twenty. */
        int originals = 0;
        for (int i = 0; i < 20; i++)
            originals += out[i].first == 'a';
        assert_in_range(originals, 1, 2);
    }
    asked[0] = (share_question){ids[1] + 1000, 0};
    assert_int_equal(tercio_map(pool, SHARED, asked, sizeof *asked, 1, out, NULL, NULL), 0);
    assert_int_equal(out[0].missing, 1);
    tercio_close(pool);
}

static void stats_add_up(void **state)
{
    tercio_pool *pool = open_pool(state, 2);
    tercio_stats stats[2] = {{.size = sizeof *stats}, {.size = sizeof *stats}};
    map_doubles(pool, 1000, NULL);
    assert_int_equal(tercio_get_stats(pool, stats, 2), 2);
    assert_int_equal(stats[0].tasks + stats[1].tasks, 1000);
    assert_int_equal(stats[0].restarts + stats[1].restarts, 0);
    tercio_close(pool);
}

static void bad_arguments(void **state)
{
    tercio_pool *pool = open_pool(state, 1);
    int64_t in = 1, out;
    tercio_result small = {.size = 16}, none = {.size = 0};
    tercio_map_options no_size = {.chunk = 1};
    assert_int_equal(tercio_map(NULL, DOUBLE, &in, 8, 1, &out, NULL, NULL), TERCIO_EINVAL);
    assert_int_equal(tercio_map(pool, N_TASKS, &in, 8, 1, &out, NULL, NULL), TERCIO_EINVAL);
    assert_int_equal(tercio_map(pool, DOUBLE, NULL, 8, 1, &out, NULL, NULL), TERCIO_EINVAL);
    assert_int_equal(tercio_map(pool, DOUBLE, &in, 8, 1, NULL, NULL, NULL), TERCIO_EINVAL);
    assert_int_equal(tercio_map(pool, DOUBLE, &in, 8, SIZE_MAX / 4, &out, NULL, NULL), TERCIO_EINVAL);
    assert_int_equal(tercio_map(pool, DOUBLE, &in, 8, 1, &out, NULL, &small), TERCIO_EINVAL);
    assert_int_equal(tercio_map(pool, DOUBLE, &in, 8, 1, &out, NULL, &none), TERCIO_EINVAL);
    assert_int_equal(tercio_map(pool, DOUBLE, &in, 8, 1, &out, &no_size, NULL), TERCIO_EINVAL);
    map_doubles(pool, 10, NULL);
    tercio_close(pool);
}

int main(int argc, char **argv)
{
    static const face_test tests[] = {
        FACE_TEST(map_of_all_sizes),
        FACE_TEST(replies_without_a_place),
        FACE_TEST(answers_of_odd_sizes),
        FACE_TEST(more_workers_than_items),
        FACE_TEST(few_at_a_time),
        FACE_TEST(items_of_no_size),
        FACE_TEST(large_items_and_answers),
        FACE_TEST(progress_reaches_its_total),
        FACE_TEST(several_threads_map_at_once),
        FACE_TEST(signals_do_not_end_a_map),
        FACE_TEST(errors_have_code_and_message),
        FACE_TEST(stop_on_error),
        FACE_TEST(deaths_cost_their_item_alone),
        FACE_TEST(retries_run_it_again),
        FACE_TEST(state_lives_from_init_to_exit),
        FACE_TEST(exit_may_fail),
        FACE_TEST(init_may_fail),
        FACE_TEST(workers_are_replaced_after_their_lifespan),
        FACE_TEST(shared_memory),
        FACE_TEST(stats_add_up),
        FACE_TEST(bad_arguments),
    };
    tercio_worker_entry(argc, argv, &face_table);
    return run_for_each_method("face", tests, sizeof tests / sizeof *tests, argc > 1 ? argv[1] : NULL);
}
