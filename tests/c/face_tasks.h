/* SPDX-License-Identifier: MIT
 *
 * What the tests of the C face share: a table of tasks, and a battery that runs for each start method. A test program
 * executes itself as its own worker: its main begins with tercio_worker_entry.
 */
#ifndef FACE_TASKS_H
#define FACE_TASKS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "entries.h"
#include "tercio.h"

enum { DOUBLE, FAIL_THIRDS, DIE, ECHO, COUNT, BLOCK, FLAKY, SHARED, WHERE, LARGE, STUCK, ODD, N_TASKS };
enum { LARGE_IN = 50000, LARGE_OUT = 100000, ODD_OUT = 5 };
enum { LIVE, BY_SIGNAL, BY_EXIT, BY_ABORT };

static inline int task_double(tercio_call *call, tercio_bytes in, void *out)
{
    int64_t number;
    (void)call;
    memcpy(&number, in.data, sizeof number);
    number *= 2;
    memcpy(out, &number, sizeof number);
    return 0;
}

static inline int task_fail_thirds(tercio_call *call, tercio_bytes in, void *out)
{
    int64_t number;
    memcpy(&number, in.data, sizeof number);
    if (number % 3 == 2)
        return tercio_fail(call, 7, "%d is no good", (int)number);
    return task_double(call, in, out);
}

/* Writes three bytes of its five. */
static inline int task_odd(tercio_call *call, tercio_bytes in, void *out)
{
    unsigned char *bytes = out;
    int64_t number;
    (void)call;
    memcpy(&number, in.data, sizeof number);
    for (int i = 0; i < 3; i++)
        bytes[i] = (unsigned char)(number * 7 + i);
    return 0;
}

/* An item is how to die; what lives answers 1. */
static inline int task_die(tercio_call *call, tercio_bytes in, void *out)
{
    int64_t how, one = 1;
    (void)call;
    memcpy(&how, in.data, sizeof how);
    if (how == BY_SIGNAL)
        raise(SIGKILL);
    if (how == BY_EXIT)
        _exit(9);
    if (how == BY_ABORT)
        abort();
    memcpy(out, &one, sizeof one);
    return 0;
}

static inline int task_echo(tercio_call *call, tercio_bytes in, void *out)
{
    void *reply = tercio_reply(call, in.size);
    (void)out;
    if (reply == NULL)
        return tercio_fail(call, 1, "no room");
    if (in.size)
        memcpy(reply, in.data, in.size);
    return 0;
}

typedef struct {
    int64_t magic, n;
} counter;

static inline int task_count(tercio_call *call, tercio_bytes in, void *out)
{
    counter *state = tercio_state(call);
    (void)in;
    if (state == NULL || state->magic != 4711)
        return tercio_fail(call, 1, "no state");
    state->n++;
    memcpy(out, &state->n, sizeof state->n);
    return 0;
}

/* Says in a fifo that it runs, then runs until it is told to stop. */
static inline int task_block(tercio_call *call, tercio_bytes in, void *out)
{
    int fd = open(in.data, O_WRONLY | O_CLOEXEC);
    (void)out;
    if (fd < 0 || write(fd, "x", 1) != 1)
        return tercio_fail(call, errno, "fifo: %s", strerror(errno));
    close(fd);
    while (!tercio_stopping(call))
        sched_yield();
    return tercio_fail(call, 3, "told to stop");
}

/* Dies once: the file remembers. */
static inline int task_flaky(tercio_call *call, tercio_bytes in, void *out)
{
    int fd = open(in.data, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    (void)call, (void)out;
    if (fd >= 0)
        raise(SIGKILL);
    return 0;
}

typedef struct {
    uint32_t id;
    int write;
} share_question;

typedef struct {
    uint64_t size;
    int first, own, missing;
} share_answer;

static inline int task_shared(tercio_call *call, tercio_bytes in, void *out)
{
    share_question asked;
    share_answer answer = {0};
    size_t size = 0;
    memcpy(&asked, in.data, sizeof asked);
    char *bytes = tercio_shared(call, asked.id, &size);
    answer.missing = bytes == NULL;
    if (bytes) {
        answer.size = size;
        /* Under threading all workers share what is written: a task that writes there has to be atomic. */
        answer.first =
            asked.write ? __atomic_fetch_add(bytes, 1, __ATOMIC_RELAXED) : __atomic_load_n(bytes, __ATOMIC_RELAXED);
        answer.own =
            asked.write && tercio_call_method(call) != TERCIO_THREADING ? bytes[0] : answer.first + asked.write;
    }
    memcpy(out, &answer, sizeof answer);
    return 0;
}

typedef struct {
    int32_t pid;
    uint32_t worker;
} place;

static inline int task_where(tercio_call *call, tercio_bytes in, void *out)
{
    place here = {getpid(), tercio_worker_id(call)};
    (void)in;
    memcpy(out, &here, sizeof here);
    return 0;
}

static inline int task_large(tercio_call *call, tercio_bytes in, void *out)
{
    if (in.size != LARGE_IN)
        return tercio_fail(call, 1, "%zu bytes", in.size);
    memset(out, *(const unsigned char *)in.data + 1, LARGE_OUT);
    return 0;
}

/* Runs for ever, whatever it is told: but a dead parent ends it, and so nothing of a failed test goes on for ever. */
static inline int task_stuck(tercio_call *call, tercio_bytes in, void *out)
{
    int fd = open(in.data, O_WRONLY | O_CLOEXEC);
    (void)call, (void)out;
    if (fd >= 0 && write(fd, "x", 1) == 1)
        close(fd);
    while (sched_yield() == 0)
        continue;
    return 1;
}

static inline int count_init(tercio_call *call, void **state)
{
    const char *how = getenv("FACE_TEST_INIT");
    static _Thread_local counter mine; /* exit, which would free it, doesn't run when a pool is just closed */
    counter *made = &mine;
    if (how && strcmp(how, "fail") == 0) {
        return tercio_fail(call, 5, "init of worker %u does not want to", tercio_worker_id(call));
    }
    made->magic = 4711;
    made->n = 0;
    *state = made;
    return 0;
}

static inline int count_exit(tercio_call *call, void *state)
{
    const char *how = getenv("FACE_TEST_EXIT");
    counter *made = state;
    int64_t n = made->n, *reply = tercio_reply(call, sizeof n);
    if (how && strcmp(how, "fail") == 0)
        return tercio_fail(call, 6, "exit does not want to");
    memcpy(reply, &n, sizeof n);
    return 0;
}

static const tercio_task face_tasks[N_TASKS] = {
    [DOUBLE] = {"double", task_double, 8},
    [FAIL_THIRDS] = {"fail_thirds", task_fail_thirds, 8},
    [DIE] = {"die", task_die, 8},
    [ECHO] = {"echo", task_echo, 0},
    [COUNT] = {"count", task_count, 8},
    [BLOCK] = {"block", task_block, 0},
    [FLAKY] = {"flaky", task_flaky, 0},
    [SHARED] = {"shared", task_shared, sizeof(share_answer)},
    [WHERE] = {"where", task_where, sizeof(place)},
    [LARGE] = {"large", task_large, LARGE_OUT},
    [STUCK] = {"stuck", task_stuck, 0},
    [ODD] = {"odd", task_odd, ODD_OUT},
};
static const tercio_table face_table = {.size = sizeof face_table,
                                        .task_size = sizeof(tercio_task),
                                        .n_tasks = N_TASKS,
                                        .tasks = face_tasks,
                                        .init = count_init,
                                        .exit = count_exit};

/* ---- The battery ---------------------------------------------------------------------------------------------------- */

static const tercio_method face_methods[] = {TERCIO_FORK, TERCIO_SPAWN, TERCIO_FORKSERVER, TERCIO_THREADING};

static inline tercio_method method_of(void **state)
{
    return *(const tercio_method *)*state;
}

static inline void skip_threads(void **state)
{
    if (method_of(state) == TERCIO_THREADING)
        skip();
}

static inline tercio_options face_options(tercio_method method, unsigned n_workers)
{
    return (tercio_options){
        .size = sizeof(tercio_options), .table = &face_table, .method = method, .n_workers = n_workers};
}

static inline tercio_pool *open_pool(void **state, unsigned n_workers)
{
    tercio_options options = face_options(method_of(state), n_workers);
    tercio_pool *pool;
    int error = tercio_open(&pool, &options);
    if (error)
        print_error("tercio_open: %s\n", tercio_error_text(error));
    assert_int_equal(error, 0);
    return pool;
}

/* A fifo through which a task says that it runs. */
typedef struct {
    char folder[32], path[64];
    int fd;
} signpost;

static inline void signpost_open(signpost *post)
{
    strcpy(post->folder, "/tmp/face-XXXXXX");
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

static size_t descriptors_before;

static inline int before_each(void **state)
{
    (void)state;
    descriptors_before = count_descriptors();
    return 0;
}

/* Nothing is left of any test: no process, no descriptor. */
static inline int after_each(void **state)
{
    (void)state;
    static bool known; /* a failed test leaves its pool; those that follow shall not fail for it */
    if (!known && (waitpid(-1, NULL, WNOHANG) != -1 || errno != ECHILD)) {
        print_error("a child process is left\n");
        known = true;
        return -1;
    }
    if (count_descriptors() != descriptors_before) {
        print_error("%zu descriptors instead of %zu\n", count_descriptors(), descriptors_before);
        return -1;
    }
    return 0;
}

typedef struct {
    const char *name;
    CMUnitTestFunction test;
} face_test;

#define FACE_TEST(function) \
    {                       \
#function, function \
    }

static inline int run_for_each_method(const char *group, const face_test *tests, size_t n, const char *filter)
{
    static char names[256][96];
    static struct CMUnitTest all[256];
    size_t n_all = 0;
    alarm(110); /* against a hang: a test that waits for ever is killed with its name on the screen */
    for (size_t m = 0; m < sizeof face_methods / sizeof *face_methods; m++)
        for (size_t i = 0; i < n; i++) {
            (void)snprintf(names[n_all], sizeof *names, "%s: %s", tercio_method_name(face_methods[m]), tests[i].name);
            if (filter && strstr(names[n_all], filter) == NULL)
                continue;
            all[n_all] = (struct CMUnitTest){.name = names[n_all],
                                             .test_func = tests[i].test,
                                             .setup_func = before_each,
                                             .teardown_func = after_each,
                                             .initial_state = (void *)(uintptr_t)&face_methods[m]};
            n_all++;
        }
    return _cmocka_run_group_tests(group, all, n_all, NULL, NULL);
}

#endif
