/* SPDX-License-Identifier: MIT
 *
 * For tests that kill: a table of tasks whose executions are counted in a file that outlives every worker, a thread
 * that kills at random moments, and a runner that looks for leftovers after each test. A test program executes
 * itself as its own worker, so its main begins with tercio_worker_entry.
 */
#ifndef BATTERY_H
#define BATTERY_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "entries.h"
#include "tercio.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SLOW 1
#else
#define SLOW 0
#endif

/* A hang is a failure with a name; nothing else is measured by the clock. */
enum { BOUND_SECONDS = 40 };

static inline uint64_t nanoseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static inline uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

/* ---- What was run, as a file remembers it ---------------------------------------------------------------------- */

enum { MOST_ITEMS = 1 << 16 };

typedef struct {
    _Atomic uint32_t begun[MOST_ITEMS], ended[MOST_ITEMS];
    _Atomic uint32_t told, open[2], exits; /* open: gates, for tasks that wait */
} ledger;

static ledger *the_ledger;

static inline ledger *map_ledger(int flags)
{
    const char *path = getenv("BATTERY_LEDGER");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC | flags, 0600) : -1;
    if (fd < 0 || ftruncate(fd, sizeof(ledger)))
        return NULL;
    void *memory = mmap(NULL, sizeof(ledger), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    return memory == MAP_FAILED ? NULL : memory;
}

static inline void new_ledger(void)
{
    memset(the_ledger, 0, sizeof *the_ledger);
}

/* ---- Tasks ------------------------------------------------------------------------------------------------------- */

enum { WORK, HOW, PATTERN, LISTEN, STUCK, SLEEP, GATED, FAILING, N_TASKS };
enum { BY_LIVING, BY_KILL, BY_SEGV, BY_EXIT_0, BY_EXIT_3, BY_ABORT };

typedef struct {
    uint32_t index, how;
    uint64_t ns; /* busy for so long */
} item;

static inline int task_work(tercio_call *call, tercio_bytes in, void *out)
{
    item asked;
    uint64_t answer;
    (void)call;
    memcpy(&asked, in.data, sizeof asked);
    atomic_fetch_add(&the_ledger->begun[asked.index], 1);
    for (uint64_t end = asked.ns ? nanoseconds() + asked.ns : 0; end && nanoseconds() < end;)
        continue;
    answer = asked.index * UINT64_C(3) + 1;
    memcpy(out, &answer, sizeof answer);
    atomic_fetch_add(&the_ledger->ended[asked.index], 1);
    return 0;
}

static inline int task_how(tercio_call *call, tercio_bytes in, void *out)
{
    item asked;
    memcpy(&asked, in.data, sizeof asked);
    switch (asked.how) {
    case BY_KILL:
        raise(SIGKILL);
        break;
    case BY_SEGV:
        signal(SIGSEGV, SIG_DFL);
        raise(SIGSEGV);
        break;
    case BY_EXIT_0:
        _exit(0);
    case BY_EXIT_3:
        _exit(3);
    case BY_ABORT:
        signal(SIGABRT, SIG_DFL);
        abort();
    default:
        break;
    }
    return task_work(call, in, out);
}

/* Ends when the gate of this number is open. */
static inline int task_gated(tercio_call *call, tercio_bytes in, void *out)
{
    item asked;
    memcpy(&asked, in.data, sizeof asked);
    atomic_fetch_add(&the_ledger->begun[asked.index], 1);
    while (!atomic_load(&the_ledger->open[asked.how]))
        sched_yield();
    return task_work(call, in, out);
}

static inline int task_failing(tercio_call *call, tercio_bytes in, void *out)
{
    (void)in, (void)out;
    return tercio_fail(call, 5, "no");
}

/* A large answer whose every byte is known, from an input whose every byte is looked at. */
static inline unsigned char pattern_byte(uint64_t index, size_t at)
{
    return (unsigned char)(index * 31 + at * 7 + (at >> 8) * 13 + (at >> 16));
}

static inline void fill_pattern(unsigned char *bytes, size_t size, uint64_t index)
{
    memcpy(bytes, &index, sizeof index);
    for (size_t i = sizeof index; i < size; i++)
        bytes[i] = pattern_byte(index, i);
}

static inline bool is_pattern(const unsigned char *bytes, size_t size, uint64_t index)
{
    uint64_t said;
    memcpy(&said, bytes, sizeof said);
    bool good = size >= sizeof said && said == index;
    for (size_t i = sizeof said; good && i < size; i++)
        good = bytes[i] == pattern_byte(index, i);
    return good;
}

static inline int task_pattern(tercio_call *call, tercio_bytes in, void *out)
{
    uint64_t index;
    (void)out;
    memcpy(&index, in.data, sizeof index);
    if (!is_pattern(in.data, in.size, index))
        return tercio_fail(call, 1, "item %d came damaged", (int)index);
    unsigned char *reply = tercio_reply(call, in.size);
    if (reply == NULL)
        return tercio_fail(call, 2, "no room for a reply");
    fill_pattern(reply, in.size, index + 1000);
    return 0;
}

/* An item of the three that follow names a fifo, in which it says that it runs. */
static inline void say(tercio_bytes in)
{
    int fd = in.size ? open(in.data, O_WRONLY | O_CLOEXEC) : -1;
    if (fd >= 0 && write(fd, "x", 1) == 1)
        close(fd);
}

static inline int task_listen(tercio_call *call, tercio_bytes in, void *out)
{
    (void)out;
    say(in);
    while (!tercio_stopping(call))
        sched_yield();
    return tercio_fail(call, 3, "told to stop");
}

static inline int task_stuck(tercio_call *call, tercio_bytes in, void *out)
{
    sigset_t all;
    (void)call, (void)out;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, NULL);
    say(in);
    while (sched_yield() == 0)
        continue;
    return 1;
}

/* Stands still in a system call, for a parent that dies or a worker that is stopped. */
static inline int task_sleep(tercio_call *call, tercio_bytes in, void *out)
{
    (void)call, (void)out;
    say(in);
    for (;;)
        pause();
    return 1;
}

static inline int task_init(tercio_call *call, void **state)
{
    static int some;
    const char *how = getenv("BATTERY_INIT");
    if (the_ledger == NULL && (the_ledger = map_ledger(0)) == NULL)
        return tercio_fail(call, 9, "no ledger");
    *state = &some;
    while (how && strcmp(how, "stuck") == 0)
        pause();
    return 0;
}

static inline int task_exit(tercio_call *call, void *state)
{
    const char *how = getenv("BATTERY_EXIT");
    (void)call, (void)state;
    while (how && strcmp(how, "stuck") == 0)
        pause();
    atomic_fetch_add(&the_ledger->exits, 1);
    return 0;
}

static const tercio_task tasks[N_TASKS] = {
    [WORK] = {"work", task_work, 8},          [HOW] = {"how", task_how, 8},
    [PATTERN] = {"pattern", task_pattern, 0}, [LISTEN] = {"listen", task_listen, 0},
    [STUCK] = {"stuck", task_stuck, 0},       [SLEEP] = {"sleep", task_sleep, 0},
    [GATED] = {"gated", task_gated, 8},       [FAILING] = {"failing", task_failing, 0},
};
static const tercio_table table = {.size = sizeof table,
                                   .task_size = sizeof(tercio_task),
                                   .n_tasks = N_TASKS,
                                   .tasks = tasks,
                                   .init = task_init,
                                   .exit = task_exit};

/* ---- Pools --------------------------------------------------------------------------------------------------------- */

static inline tercio_method method_of(void **state)
{
    return *(const tercio_method *)*state;
}

static inline tercio_options options_of(void **state, unsigned n_workers)
{
    return (tercio_options){.size = sizeof(tercio_options),
                            .table = &table,
                            .method = method_of(state),
                            .n_workers = n_workers,
                            .threads_at_fork = true};
}

static inline tercio_pool *open_pool(void **state, unsigned n_workers)
{
    tercio_options options = options_of(state, n_workers);
    tercio_pool *pool;
    int error = tercio_open(&pool, &options);
    if (error)
        print_error("tercio_open: %s\n", tercio_error_text(error));
    assert_int_equal(error, 0);
    return pool;
}

static inline void skip_threads(void **state)
{
    if (method_of(state) == TERCIO_THREADING)
        skip();
}

static inline item *items_of(size_t n, uint64_t most_ns)
{
    uint64_t random = 88172645463325252u;
    item *made = calloc(n + 1, sizeof *made);
    for (size_t i = 0; i < n; i++) {
        made[i].index = (uint32_t)i;
        made[i].ns = most_ns ? next_random(&random) % most_ns : 0;
    }
    return made;
}

/* The pool works as if nothing had happened. */
static inline void still_works(tercio_pool *pool)
{
    enum { N = 200 };
    item *in = items_of(N, 0);
    uint64_t out[N];
    new_ledger();
    assert_int_equal(tercio_map(pool, WORK, in, sizeof *in, N, out, NULL, NULL), 0);
    for (size_t i = 0; i < N; i++) {
        assert_int_equal(out[i], i * 3 + 1);
        assert_int_equal(the_ledger->begun[i], 1);
    }
    free(in);
}

typedef struct {
    char folder[32], path[64];
    int fd;
} signpost;

static inline void signpost_open(signpost *post)
{
    strcpy(post->folder, "/tmp/tercio-XXXXXX");
    assert_non_null(mkdtemp(post->folder));
    (void)snprintf(post->path, sizeof post->path, "%s/fifo", post->folder);
    assert_int_equal(mkfifo(post->path, 0600), 0);
    post->fd = open(post->path, O_RDWR | O_CLOEXEC); /* both: so that it never ends */
    assert_true(post->fd >= 0);
}

static inline void signpost_wait(const signpost *post, int n)
{
    char byte;
    while (n-- > 0)
        assert_int_equal(read(post->fd, &byte, 1), 1);
}

static inline void signpost_close(signpost *post)
{
    close(post->fd);
    unlink(post->path);
    rmdir(post->folder);
}

static inline tercio_bytes signpost_input(const signpost *post)
{
    return (tercio_bytes){post->path, strlen(post->path) + 1};
}

/* ---- Leftovers ----------------------------------------------------------------------------------------------------- */

static size_t descriptors_before, threads_before;

static inline int before_each(void **state)
{
    (void)state;
    descriptors_before = count_descriptors();
    threads_before = count_listed_threads();
    new_ledger();
    alarm(BOUND_SECONDS);
    return 0;
}

static inline int after_each(void **state)
{
    alarm(0);
    bool left = waitpid(-1, NULL, WNOHANG) != -1 || errno != ECHILD;
    if (left) {
        /* A pool of a test that failed goes on behind our back: nothing after it would be worth anything. */
        print_error("a child process is left\n");
        exit(1);
    }
    size_t threads = count_listed_threads();
    /* A thread that was joined may be listed for a moment yet: its last instructions are the kernel's. */
    for (uint64_t end = nanoseconds() + 2000000000u; threads > threads_before && nanoseconds() < end;) {
        sched_yield();
        threads = count_listed_threads();
    }
    size_t descriptors = count_descriptors(); /* the last thread of a pool closes some */
    if (descriptors != descriptors_before) {
        print_error("%zu descriptors instead of %zu\n", descriptors, descriptors_before);
        left = true;
    }
    /* A thread that did not listen is left behind, as tercio.h says. */
    if (threads > threads_before && method_of(state) != TERCIO_THREADING) {
        print_error("%zu threads instead of %zu\n", threads, threads_before);
        left = true;
    }
    return left ? -1 : 0;
}

/* ---- The runner ---------------------------------------------------------------------------------------------------- */

typedef struct {
    const char *name;
    CMUnitTestFunction test;
} battery_test;

#define BATTERY_TEST(function) \
    {                          \
#function, function    \
    }

static inline int run_battery_for(const tercio_method *methods, size_t n_methods, const char *group,
                                  const battery_test *tests, size_t n, const char *filter)
{
    static char names[256][96];
    static struct CMUnitTest all[256];
    size_t n_all = 0;
    char path[] = "/tmp/tercio-ledger-XXXXXX";
    int fd = mkstemp(path);
    if (fd < 0 || setenv("BATTERY_LEDGER", path, 1) || (the_ledger = map_ledger(0)) == NULL)
        return 1;
    close(fd);
    for (size_t m = 0; m < n_methods; m++)
        for (size_t i = 0; i < n && n_all < sizeof all / sizeof *all; i++) {
            (void)snprintf(names[n_all], sizeof *names, "%s: %s", tercio_method_name(methods[m]), tests[i].name);
            if (filter && strstr(names[n_all], filter) == NULL)
                continue;
            all[n_all] = (struct CMUnitTest){.name = names[n_all],
                                             .test_func = tests[i].test,
                                             .setup_func = before_each,
                                             .teardown_func = after_each,
                                             .initial_state = (void *)(uintptr_t)&methods[m]};
            n_all++;
        }
    int failed = _cmocka_run_group_tests(group, all, n_all, NULL, NULL);
    unlink(path);
    return failed;
}

static inline int run_battery(const char *group, const battery_test *tests, size_t n, const char *filter)
{
    static const tercio_method methods[] = {TERCIO_FORK, TERCIO_SPAWN, TERCIO_FORKSERVER, TERCIO_THREADING};
    return run_battery_for(methods, sizeof methods / sizeof *methods, group, tests, n, filter);
}

/* For subjects to which it makes no difference how a worker is started: forked ones and threads will do. Each has the memory
 * that shared_memory returns. */
static inline int run_battery_of_two(const char *group, const battery_test *tests, size_t n, const char *filter)
{
    static const tercio_method methods[] = {TERCIO_FORK, TERCIO_THREADING};
    return run_battery_for(methods, sizeof methods / sizeof *methods, group, tests, n, filter);
}

static inline void *shared_memory(size_t size)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        exit(1);
    return memory;
}

#endif
