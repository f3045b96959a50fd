/* SPDX-License-Identifier: MIT
 *
 * The C face: how pools begin and end. Options that can't be, tables that differ, children that the application
 * forks, and that nothing is left when a pool, or its whole program, ends in the middle of its work.
 */
#include "face_tasks.h"

#include <pthread.h>

enum { BOUND = 10000 }; /* ms, against a hang */

/* ---- Opening -------------------------------------------------------------------------------------------------------- */

static void expect_open(int expected, const tercio_options *options)
{
    tercio_pool *pool = (tercio_pool *)(uintptr_t)1;
    int error = tercio_open(&pool, options);
    if (error != expected)
        print_error("%s instead of %s\n", tercio_error_name(error), tercio_error_name(expected));
    assert_int_equal(error, expected);
    assert_null(pool);
}

static void options_that_cannot_be(void **state)
{
    tercio_options good = face_options(method_of(state), 1), bad;
    expect_open(TERCIO_EINVAL, NULL);
    bad = good, bad.size = 0;
    expect_open(TERCIO_EINVAL, &bad);
    bad = good, bad.table = NULL;
    expect_open(TERCIO_EINVAL, &bad);
    bad = good, bad.method = (tercio_method)17;
    expect_open(TERCIO_EINVAL, &bad);
    bad = good, bad.n_cpu_ids = 3;
    expect_open(TERCIO_EINVAL, &bad);
    bad = good, bad.grace = -1;
    expect_open(TERCIO_EINVAL, &bad);
    bad = good, bad.init_timeout = -1;
    expect_open(TERCIO_EINVAL, &bad);
}

static void tables_that_cannot_be(void **state)
{
    static const tercio_task twice[] = {{"same", task_double, 8}, {"same", task_echo, 0}};
    static const tercio_task nameless[] = {{NULL, task_double, 8}};
    static const tercio_task empty[] = {{"nothing", NULL, 8}};
    tercio_options options = face_options(method_of(state), 1);
    tercio_table table = face_table;
    options.table = &table;
    table.tasks = twice, table.n_tasks = 2;
    expect_open(TERCIO_EINVAL, &options);
    table.tasks = nameless, table.n_tasks = 1;
    expect_open(TERCIO_EINVAL, &options);
    table.tasks = empty;
    expect_open(TERCIO_EINVAL, &options);
    table = face_table, table.n_tasks = 0;
    expect_open(TERCIO_EINVAL, &options);
    table = face_table, table.task_size = 4;
    expect_open(TERCIO_EINVAL, &options);
    table = face_table, table.size = 0;
    expect_open(TERCIO_EINVAL, &options);
}

/* A fresh image has the table that its main names. */
static void a_table_that_differs(void **state)
{
    static const tercio_task other[] = {{"double", task_double, 8}, {"fail_thirds", task_fail_thirds, 16}};
    tercio_table table = face_table;
    tercio_options options = face_options(method_of(state), 2);
    table.tasks = other;
    table.n_tasks = 2;
    options.table = &table;
    if (method_of(state) == TERCIO_SPAWN || method_of(state) == TERCIO_FORKSERVER) {
        expect_open(TERCIO_ETABLE, &options);
        return;
    }
    tercio_pool *pool;
    int64_t in = 2, out;
    assert_int_equal(tercio_open(&pool, &options), 0);
    assert_int_equal(tercio_map(pool, 0, &in, 8, 1, &out, NULL, NULL), 0);
    assert_int_equal(out, 4);
    tercio_close(pool);
}

static void a_worker_that_is_none(void **state)
{
    if (method_of(state) != TERCIO_SPAWN)
        skip();
    char *const missing[] = {"/nowhere/worker", NULL}, *const deaf[] = {"/bin/false", NULL};
    tercio_options options = face_options(TERCIO_SPAWN, 1);
    options.worker_argv = missing;
    expect_open(TERCIO_ESYSTEM, &options);
    options.worker_argv = deaf;
    expect_open(TERCIO_ESTART, &options);
}

/* A command that reads its argument from the pipe whose number it gets, and becomes this program with it. */
static void an_argument_in_a_pipe(void **state)
{
    if (method_of(state) != TERCIO_SPAWN && method_of(state) != TERCIO_FORKSERVER)
        skip();
    char own[4096], script[] = "read -r argument </proc/self/fd/${1#pipe=} && exec \"$0\" \"${argument#before }\"";
    ssize_t length = readlink("/proc/self/exe", own, sizeof own - 1);
    assert_true(length > 0);
    own[length] = '\0';
    char *const command[] = {"/bin/sh", "-c", script, own, "pipe=", NULL};
    tercio_bytes around[] = {{"before ", 7}, {"\n", 1}};
    tercio_options options = face_options(method_of(state), 2);
    options.worker_argv = command;
    options.worker_pipe = around;
    tercio_pool *pool;
    int64_t in[] = {1, 2, 3}, out[3];
    assert_int_equal(tercio_open(&pool, &options), 0);
    for (int round = 0; round < 3; round++) {
        tercio_map_options each = {.size = sizeof each, .chunk = 1, .lifespan = 1}; /* each takes a new worker */
        assert_int_equal(tercio_map(pool, DOUBLE, in, 8, 3, out, &each, NULL), 0);
        assert_int_equal(out[2], 6);
    }
    tercio_close(pool);

    around[0] = (tercio_bytes){calloc(1, 8192), 8192};
    assert_non_null(around[0].data);
    expect_open(TERCIO_EINVAL, &options);
    free((void *)(uintptr_t)around[0].data);
}

static void *wait_for_a_byte(void *argument)
{
    char byte;
    return read(*(int *)argument, &byte, 1) == 1 ? NULL : argument;
}

static void fork_beside_threads(void **state)
{
    if (method_of(state) != TERCIO_FORK)
        skip();
    int ends[2];
    pthread_t thread;
    tercio_options options = face_options(TERCIO_FORK, 1);
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(pthread_create(&thread, NULL, wait_for_a_byte, &ends[0]), 0);
    expect_open(TERCIO_ETHREADS, &options);
    options.threads_at_fork = true;
    tercio_pool *pool;
    assert_int_equal(tercio_open(&pool, &options), 0);
    tercio_close(pool);
    assert_int_equal(write(ends[1], "x", 1), 1);
    pthread_join(thread, NULL);
    close(ends[0]);
    close(ends[1]);
}

static void two_pools_beside_each_other(void **state)
{
    tercio_pool *one = open_pool(state, 2), *two = open_pool(state, 1);
    int64_t in[] = {1, 2, 3}, out[3];
    for (int i = 0; i < 20; i++) {
        assert_int_equal(tercio_map(i % 2 ? one : two, DOUBLE, in, 8, 3, out, NULL, NULL), 0);
        assert_int_equal(out[2], 6);
    }
    tercio_close(one);
    assert_int_equal(tercio_map(two, DOUBLE, in, 8, 3, out, NULL, NULL), 0);
    tercio_close(two);
}

/* ---- Children that the application forks ------------------------------------------------------------------------------ */

static int use_in_child(tercio_pool *pool, tercio_run *run)
{
    int64_t in = 1, out;
    uint32_t id;
    tercio_run *other;
    tercio_result result = {.size = sizeof result};
    if (tercio_map(pool, DOUBLE, &in, 8, 1, &out, NULL, NULL) != TERCIO_EFORKED)
        return 1;
    if (tercio_submit(pool, DOUBLE, (tercio_bytes){&in, 8}, NULL, &other) != TERCIO_EFORKED)
        return 2;
    if (tercio_next(run, -1, &result) != TERCIO_EFORKED)
        return 3;
    if (tercio_share(pool, TERCIO_READONLY, (tercio_bytes){&in, 8}, &id) != TERCIO_EFORKED)
        return 4;
    if (tercio_cancel(run, 0) != TERCIO_EFORKED)
        return 5;
    if (tercio_finish(pool, 1, NULL, NULL) != TERCIO_EFORKED)
        return 6;
    tercio_interrupt(pool);
    tercio_run_close(run);
    tercio_close(pool);
    return 0;
}

static void a_forked_child(void **state)
{
    tercio_pool *pool = open_pool(state, 2);
    tercio_run *run;
    tercio_result result = {.size = sizeof result};
    int64_t number = 21;
    int status;
    assert_int_equal(tercio_submit(pool, DOUBLE, (tercio_bytes){&number, 8}, NULL, &run), 0);
    pid_t child = fork();
    if (child == 0)
        _exit(use_in_child(pool, run));
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    /* The parent's pool is as it was. */
    assert_int_equal(tercio_next(run, -1, &result), 1);
    memcpy(&number, result.out.data, sizeof number);
    assert_int_equal(number, 42);
    tercio_release(run, &result);
    tercio_run_close(run);
    tercio_close(pool);
}

/* ---- Ends in the middle ------------------------------------------------------------------------------------------------ */

static int handle_of(int pid)
{
    return (int)syscall(SYS_pidfd_open, pid, 0, 0, 0, 0, 0x7e57); /* refuse.c */
}

static void expect_death(int handle)
{
    struct pollfd dead = {.fd = handle, .events = POLLIN};
    assert_int_equal(poll(&dead, 1, BOUND), 1);
    close(handle);
}

static void close_while_they_work(void **state)
{
    skip_threads(state);
    tercio_options options = face_options(method_of(state), 2);
    tercio_pool *pool;
    tercio_run *runs[6];
    int pids[2], handles[2];
    signpost post;
    options.grace = 0.05;
    for (unsigned task = BLOCK; task <= STUCK; task += STUCK - BLOCK) {
        signpost_open(&post);
        assert_int_equal(tercio_open(&pool, &options), 0);
        for (int i = 0; i < 6; i++)
            assert_int_equal(tercio_submit(pool, task, signpost_input(&post), NULL, &runs[i]), 0);
        signpost_wait(&post, 2);
        assert_int_equal(tercio_worker_pids(pool, pids, 2), 2);
        for (int i = 0; i < 2; i++)
            handles[i] = handle_of(pids[i]);
        tercio_close(pool);
        for (int i = 0; i < 2; i++) {
            struct pollfd dead = {.fd = handles[i], .events = POLLIN};
            assert_int_equal(poll(&dead, 1, 0), 1); /* already */
            close(handles[i]);
        }
        for (int i = 0; i < 6; i++) {
            tercio_result result = {.size = sizeof result};
            assert_int_equal(tercio_next(runs[i], 0, &result), TERCIO_ECLOSED);
            tercio_run_close(runs[i]);
        }
        signpost_close(&post);
    }
}

/* What is queued behind an item that takes too long is dropped with it, not handed to the next worker. A process is
 * killed, whatever it does; a thread is asked to stop. */
static void finish_has_a_limit(void **state)
{
    enum { ITEMS = 6 };
    unsigned task = method_of(state) == TERCIO_THREADING ? BLOCK : STUCK;
    tercio_options options = face_options(method_of(state), 2);
    tercio_pool *pool;
    tercio_run *runs[ITEMS];
    signpost post;
    options.grace = 0.05;
    signpost_open(&post);
    assert_int_equal(tercio_open(&pool, &options), 0);
    for (int i = 0; i < ITEMS; i++)
        assert_int_equal(tercio_submit(pool, task, signpost_input(&post), NULL, &runs[i]), 0);
    signpost_wait(&post, 2);
    assert_int_equal(tercio_finish(pool, 0.05, NULL, NULL), TERCIO_ETIMEDOUT);
    for (int i = 0; i < ITEMS; i++) {
        tercio_result result = {.size = sizeof result};
        int more;
        while ((more = tercio_next(runs[i], 0, &result)) == 1) { /* of one that was stopped */
            assert_int_not_equal(result.status, 0);
            tercio_release(runs[i], &result);
        }
        assert_int_not_equal(more, TERCIO_EAGAIN);
        tercio_run_close(runs[i]);
    }
    struct pollfd begun = {.fd = post.fd, .events = POLLIN};
    assert_int_equal(poll(&begun, 1, 0), 0); /* none of them began */
    tercio_close(pool);
    signpost_close(&post);
}

/* A program that works, with its workers, until it is killed. */
static void work_until_killed(tercio_method method, const signpost *post, int tell)
{
    tercio_options options = face_options(method, 2);
    tercio_pool *pool;
    tercio_run *runs[2];
    int pids[2];
    if (tercio_open(&pool, &options))
        _exit(1);
    for (int i = 0; i < 2; i++)
        if (tercio_submit(pool, STUCK, signpost_input(post), NULL, &runs[i]))
            _exit(2);
    if (tercio_worker_pids(pool, pids, 2) != 2 || write(tell, pids, sizeof pids) != sizeof pids)
        _exit(3);
    for (;;)
        pause();
}

static void the_parent_is_killed(void **state)
{
    skip_threads(state);
    int ends[2], pids[2], handles[2], status;
    signpost post;
    signpost_open(&post);
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    pid_t program = fork();
    if (program == 0)
        work_until_killed(method_of(state), &post, ends[1]);
    assert_int_equal(read(ends[0], pids, sizeof pids), sizeof pids);
    for (int i = 0; i < 2; i++)
        assert_true((handles[i] = handle_of(pids[i])) >= 0);
    signpost_wait(&post, 2); /* both are busy in C, signals blocked */
    kill(program, SIGKILL);
    assert_int_equal(waitpid(program, &status, 0), program);
    for (int i = 0; i < 2; i++)
        expect_death(handles[i]);
    close(ends[0]);
    close(ends[1]);
    signpost_close(&post);
}

static void idle_workers_die_with_their_parent(void **state)
{
    skip_threads(state);
    int ends[2], pids[2], handles[2], status;
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    pid_t program = fork();
    if (program == 0) {
        tercio_options options = face_options(method_of(state), 2);
        tercio_pool *pool;
        if (tercio_open(&pool, &options) || tercio_worker_pids(pool, pids, 2) != 2 ||
            write(ends[1], pids, sizeof pids) != sizeof pids)
            _exit(1);
        for (;;)
            pause();
    }
    assert_int_equal(read(ends[0], pids, sizeof pids), sizeof pids);
    for (int i = 0; i < 2; i++)
        assert_true((handles[i] = handle_of(pids[i])) >= 0);
    kill(program, SIGKILL);
    assert_int_equal(waitpid(program, &status, 0), program);
    for (int i = 0; i < 2; i++)
        expect_death(handles[i]);
    close(ends[0]);
    close(ends[1]);
}

static void a_worker_is_killed_from_outside(void **state)
{
    skip_threads(state);
    tercio_pool *pool = open_pool(state, 1);
    tercio_result result = {.size = sizeof result};
    tercio_run *run, *next;
    int64_t number = 4;
    int pid;
    signpost post;
    signpost_open(&post);
    assert_int_equal(tercio_submit(pool, STUCK, signpost_input(&post), NULL, &run), 0);
    assert_int_equal(tercio_submit(pool, DOUBLE, (tercio_bytes){&number, 8}, NULL, &next), 0);
    signpost_wait(&post, 1);
    assert_int_equal(tercio_worker_pids(pool, &pid, 1), 1);
    kill(pid, SIGKILL);
    assert_int_equal(tercio_next(run, -1, &result), 1);
    assert_int_equal(result.status, TERCIO_EDIED);
    assert_int_equal(result.signal, SIGKILL);
    assert_int_equal(result.pid, pid);
    tercio_release(run, &result);
    tercio_run_close(run);
    assert_int_equal(tercio_next(next, -1, &result), 1); /* what was queued behind it runs in the next worker */
    assert_int_equal(result.status, 0);
    tercio_release(next, &result);
    tercio_run_close(next);
    signpost_close(&post);
    tercio_close(pool);
}

/* ---- Without a pool ---------------------------------------------------------------------------------------------------- */

static void words(void **state)
{
    tercio_method method;
    assert_int_equal(tercio_method_parse(tercio_method_name(method_of(state)), &method), 0);
    assert_int_equal(method, method_of(state));
    assert_int_equal(tercio_method_parse("default", &method), 0);
    assert_int_equal(method, TERCIO_DEFAULT);
    assert_int_equal(tercio_method_parse("Fork", &method), TERCIO_EINVAL);
    assert_int_equal(tercio_method_parse("", &method), TERCIO_EINVAL);
    assert_string_equal(tercio_method_name(TERCIO_DEFAULT), "fork");
    assert_string_equal(tercio_error_name(TERCIO_EDIED), "TERCIO_EDIED");
    assert_string_equal(tercio_error_text(TERCIO_ENOMEM), "out of memory");
    assert_string_equal(tercio_error_text(-12345), "unknown error");
    assert_int_equal(tercio_version(), TERCIO_VERSION);
    assert_true(tercio_usable_cpus() >= 1);
    tercio_close(NULL);
    tercio_run_close(NULL);
    tercio_interrupt(NULL);
}

int main(int argc, char **argv)
{
    static const face_test tests[] = {
        FACE_TEST(words),
        FACE_TEST(options_that_cannot_be),
        FACE_TEST(tables_that_cannot_be),
        FACE_TEST(a_table_that_differs),
        FACE_TEST(a_worker_that_is_none),
        FACE_TEST(an_argument_in_a_pipe),
        FACE_TEST(fork_beside_threads),
        FACE_TEST(two_pools_beside_each_other),
        FACE_TEST(a_forked_child),
        FACE_TEST(close_while_they_work),
        FACE_TEST(finish_has_a_limit),
        FACE_TEST(the_parent_is_killed),
        FACE_TEST(idle_workers_die_with_their_parent),
        FACE_TEST(a_worker_is_killed_from_outside),
    };
    tercio_worker_entry(argc, argv, &face_table);
    return run_for_each_method("face_end", tests, sizeof tests / sizeof *tests, argc > 1 ? argv[1] : NULL);
}
