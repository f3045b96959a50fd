/* SPDX-License-Identifier: MIT
 *
 * Pools that end while something is under way: a limit that passes with work queued, an abort, threads that are left
 * behind and go on. Address sanitizer sees what such a thread must not touch.
 */
#include "face_tasks.h"

#include <pthread.h>
#include <stdatomic.h>

enum { HOLD, LISTEN, N_ENDING_TASKS };
enum { LARGE_BYTES = 40000 }; /* more than a ring takes: it travels in a block */

/* For workers that are threads: what they hold on to is released by the test, and each is counted as it returns. */
static _Atomic int released, returned;
static uint32_t shared_id;

static int announce(tercio_bytes in)
{
    int fd = open(in.data, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, "x", 1) != 1)
        return -1;
    close(fd);
    return 0;
}

/* An item of one byte, or a large one, is done at once. Any other is a signpost's, and is held until it is released. */
static int task_hold(tercio_call *call, tercio_bytes in, void *out)
{
    size_t size = 0;
    (void)out;
    if (in.size == 1 || in.size == LARGE_BYTES)
        return ((const char *)in.data)[in.size - 1] == 'x' ? 0 : tercio_fail(call, 1, "another item");
    if (announce(in))
        return tercio_fail(call, 1, "no signpost");
    while (!atomic_load(&released))
        sched_yield();
    const char *shared = tercio_shared(call, shared_id, &size);
    int code = shared == NULL || shared[size - 1] == 'x' ? 0 : tercio_fail(call, 1, "other shared bytes");
    atomic_fetch_add(&returned, 1);
    return code;
}

static int task_listen(tercio_call *call, tercio_bytes in, void *out)
{
    (void)out;
    if (in.size == 1)
        return 0;
    if (announce(in))
        return tercio_fail(call, 1, "no signpost");
    while (!tercio_stopping(call))
        sched_yield();
    return tercio_fail(call, 3, "told to stop");
}

static const tercio_task ending_tasks[N_ENDING_TASKS] = {
    [HOLD] = {"hold", task_hold, 0}, [LISTEN] = {"listen", task_listen, 0}};
static const tercio_table ending_table = {
    .size = sizeof ending_table, .task_size = sizeof(tercio_task), .n_tasks = N_ENDING_TASKS, .tasks = ending_tasks};

static tercio_pool *open_ending_pool(void **state, unsigned n_workers)
{
    tercio_options options = face_options(method_of(state), n_workers);
    tercio_pool *pool;
    options.table = &ending_table;
    options.grace = 0.05;
    atomic_store(&released, 0);
    atomic_store(&returned, 0);
    assert_int_equal(tercio_open(&pool, &options), 0);
    return pool;
}

/* Threads that were left behind go on, and end. */
static void release_threads(void **state, int n)
{
    atomic_store(&released, 1);
    while (method_of(state) == TERCIO_THREADING && atomic_load(&returned) < n)
        sched_yield();
}

/* ---- A limit passes ----------------------------------------------------------------------------------------------- */

static void finish_drops_what_is_queued(void **state)
{
    enum { N = 5 };
    tercio_pool *pool = open_ending_pool(state, 1);
    tercio_run *runs[N];
    tercio_result result = {.size = sizeof result};
    signpost post;
    signpost_open(&post);
    for (int i = 0; i < N; i++)
        assert_int_equal(tercio_submit(pool, HOLD, signpost_input(&post), NULL, &runs[i]), 0);
    signpost_wait(&post, 1);
    assert_int_equal(tercio_finish(pool, 0.05, NULL, NULL), TERCIO_ETIMEDOUT);
    for (int i = 0; i < N; i++) {
        assert_int_equal(tercio_next(runs[i], -1, &result), TERCIO_ECLOSED);
        tercio_run_close(runs[i]);
    }
    tercio_run *late;
    assert_int_equal(tercio_submit(pool, HOLD, signpost_input(&post), NULL, &late), TERCIO_ECLOSED);
    assert_int_equal(tercio_finish(pool, 0, NULL, NULL), TERCIO_ECLOSED); /* it has ended, with a loss */
    tercio_close(pool);
    release_threads(state, 1);
    signpost_close(&post);
}

static void *map_held_items(void *data)
{
    void **given = data;
    const signpost *post = given[1];
    enum { N = 40 };
    char(*in)[sizeof post->path] = calloc(N, sizeof *in);
    for (int i = 0; i < N; i++)
        memcpy(in[i], post->path, sizeof *in);
    tercio_map_options options = {.size = sizeof options, .chunk = 1};
    intptr_t error = tercio_map(given[0], HOLD, in, sizeof *in, N, NULL, &options, NULL);
    free(in);
    return (void *)error; /* NOLINT(performance-no-int-to-ptr) */
}

static void a_map_in_another_thread_ends_with_it(void **state)
{
    tercio_pool *pool = open_ending_pool(state, 2);
    pthread_t thread;
    void *error;
    signpost post;
    signpost_open(&post);
    void *given[] = {pool, &post};
    assert_int_equal(pthread_create(&thread, NULL, map_held_items, given), 0);
    signpost_wait(&post, 2);
    assert_int_equal(tercio_finish(pool, 0.05, NULL, NULL), TERCIO_ETIMEDOUT);
    assert_int_equal(pthread_join(thread, &error), 0);
    assert_int_equal((intptr_t)error, TERCIO_ECLOSED);
    tercio_close(pool);
    release_threads(state, 2);
    signpost_close(&post);
}

/* ---- Abort -------------------------------------------------------------------------------------------------------- */

typedef struct {
    const signpost *post;
    int at, n;
} source;

static void expect_done(tercio_run *run)
{
    tercio_result result = {.size = sizeof result};
    assert_int_equal(tercio_next(run, -1, &result), 1);
    assert_int_equal(result.status, 0);
    tercio_release(run, &result);
    tercio_run_close(run);
}

/* No call looks at what the worker did between the pushes and the abort, so the first message is finished and its slot is
 * not reclaimed. */
static void abort_stops_what_runs(void **state)
{
    tercio_pool *pool = open_ending_pool(state, 1);
    tercio_run *finished, *running, *next;
    tercio_result result = {.size = sizeof result};
    int before, after;
    signpost post;
    signpost_open(&post);
    assert_int_equal(tercio_worker_pids(pool, &before, 1), 1);
    assert_int_equal(tercio_submit(pool, LISTEN, (tercio_bytes){"x", 1}, NULL, &finished), 0);
    assert_int_equal(tercio_submit(pool, LISTEN, signpost_input(&post), NULL, &running), 0);
    signpost_wait(&post, 1);
    tercio_abort(pool, NULL);
    expect_done(finished);
    assert_int_equal(tercio_next(running, -1, &result), 1);
    assert_int_equal(result.code, 3); /* the task's own answer to the interruption */
    tercio_release(running, &result);
    tercio_run_close(running);
    assert_int_equal(tercio_submit(pool, LISTEN, (tercio_bytes){"x", 1}, NULL, &next), 0);
    expect_done(next);
    assert_int_equal(tercio_worker_pids(pool, &after, 1), 1);
    assert_int_equal(before, after); /* it was interrupted, not killed */
    signpost_close(&post);
    tercio_close(pool);
}

/* ---- Threads that are left behind ----------------------------------------------------------------------------------- */

static int next_with_a_large_one(void *user, tercio_bytes *in)
{
    static char large[LARGE_BYTES];
    source *from = user;
    if (from->at == from->n)
        return 0;
    memset(large, 'x', sizeof large);
    *in = from->at++ == 0 ? signpost_input(from->post) : (tercio_bytes){large, sizeof large};
    return 1;
}

/* The message's first item is held, and its last ones lie in blocks that the worker has not opened yet. */
static tercio_run *hold_before_large_items(tercio_pool *pool, source *from, double timeout)
{
    tercio_map_options options = {.size = sizeof options, .chunk = (size_t)from->n, .timeout = timeout};
    tercio_run *run;
    char shared[LARGE_BYTES];
    memset(shared, 'x', sizeof shared);
    assert_int_equal(tercio_share(pool, TERCIO_READONLY, (tercio_bytes){shared, sizeof shared}, &shared_id), 0);
    assert_int_equal(tercio_stream(pool, HOLD, next_with_a_large_one, from, &options, &run), 0);
    return run;
}

static void a_thread_is_left_behind(void **state)
{
    if (method_of(state) != TERCIO_THREADING)
        skip();
    tercio_pool *pool = open_ending_pool(state, 1);
    tercio_result result = {.size = sizeof result};
    signpost post;
    signpost_open(&post);
    source from = {&post, 0, 3};
    tercio_run *run = hold_before_large_items(pool, &from, 0.05);
    assert_int_equal(tercio_next(run, -1, &result), 1);
    assert_int_equal(result.status, TERCIO_ETIMEDOUT);
    tercio_release(run, &result);
    for (int i = 1; i < from.n; i++) { /* another thread runs them */
        assert_int_equal(tercio_next(run, -1, &result), 1);
        assert_int_equal(result.status, 0);
        tercio_release(run, &result);
    }
    tercio_run_close(run);
    release_threads(state, 1);
    tercio_close(pool);
    signpost_close(&post);
}

static void a_thread_is_left_at_close(void **state)
{
    if (method_of(state) != TERCIO_THREADING)
        skip();
    tercio_pool *pool = open_ending_pool(state, 1);
    tercio_result result = {.size = sizeof result};
    signpost post;
    signpost_open(&post);
    source from = {&post, 0, 3};
    tercio_run *run = hold_before_large_items(pool, &from, 0);
    assert_int_equal(tercio_next(run, 0, &result), TERCIO_EAGAIN);
    signpost_wait(&post, 1);
    tercio_close(pool);
    tercio_run_close(run);
    release_threads(state, 1);
    signpost_close(&post);
}

int main(int argc, char **argv)
{
    static const face_test tests[] = {
        FACE_TEST(finish_drops_what_is_queued), FACE_TEST(a_map_in_another_thread_ends_with_it),
        FACE_TEST(abort_stops_what_runs),       FACE_TEST(a_thread_is_left_behind),
        FACE_TEST(a_thread_is_left_at_close),
    };
    tercio_worker_entry(argc, argv, &ending_table);
    return run_for_each_method("endings", tests, sizeof tests / sizeof *tests, argc > 1 ? argv[1] : NULL);
}
