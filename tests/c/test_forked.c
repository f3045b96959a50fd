/* SPDX-License-Identifier: MIT
 *
 * tercio_close in a child that the application forks: it frees what the child has of the pool, closes its descriptors, and
 * the parent's pool goes on. What the child has itself, a number that the pool had before among it, is left alone.
 */
#include "face_tasks.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "child.h"

enum { BOUND_SECONDS = 100, N_BEHIND = 30, CLOSE_COPY = N_TASKS, N_OWN_TASKS };

/* ---- What a process has ------------------------------------------------------------------------------------------------ */

static _Atomic long n_allocated;

#if SANITIZED
static const bool counts = false;
#else
static const bool counts = true;

void *__libc_malloc(size_t);
void *__libc_calloc(size_t, size_t);
void *__libc_realloc(void *, size_t);
void *__libc_memalign(size_t, size_t);
void __libc_free(void *);

static void *counted(void *memory)
{
    if (memory)
        atomic_fetch_add(&n_allocated, 1);
    return memory;
}

void *malloc(size_t size)
{
    return counted(__libc_malloc(size));
}

void *calloc(size_t n, size_t size)
{
    return counted(__libc_calloc(n, size));
}

void *aligned_alloc(size_t alignment, size_t size)
{
    return counted(__libc_memalign(alignment, size));
}

void *realloc(void *old, size_t size)
{
    return old ? __libc_realloc(old, size) : counted(__libc_malloc(size));
}

void free(void *memory)
{
    if (memory)
        atomic_fetch_sub(&n_allocated, 1);
    __libc_free(memory);
}
#endif

typedef struct {
    size_t descriptors, mappings;
    long allocated;
} belongings;

static belongings count_belongings(void)
{
    char text[4096];
    belongings now = {.descriptors = count_descriptors()};
    int maps = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
    for (ssize_t n; (n = read(maps, text, sizeof text)) > 0;)
        for (ssize_t i = 0; i < n; i++)
            now.mappings += text[i] == '\n';
    close(maps);
    now.allocated = atomic_load(&n_allocated);
    return now;
}

/* ---- A pool in the middle of its work ---------------------------------------------------------------------------------- */

static tercio_pool *the_pool; /* a global variable that replaced workers find */

static int task_close_copy(tercio_call *call, tercio_bytes in, void *out)
{
    (void)in;
    if (the_pool)
        tercio_close(the_pool);
    the_pool = NULL;
    return task_double(call, in, out);
}

static const tercio_table *own_table(void)
{
    static tercio_task all[N_OWN_TASKS];
    static tercio_table made;
    memcpy(all, face_tasks, sizeof face_tasks);
    all[CLOSE_COPY] = (tercio_task){"close a copy", task_close_copy, 8};
    made = face_table;
    made.tasks = all;
    made.n_tasks = N_OWN_TASKS;
    return &made;
}

static tercio_pool *open_own(tercio_method method, const int *descriptors, size_t n)
{
    tercio_options options = face_options(method, 2);
    tercio_pool *pool;
    options.table = own_table();
    options.descriptors = descriptors;
    options.n_descriptors = n;
    options.threads_at_fork = true;
    assert_int_equal(tercio_open(&pool, &options), 0);
    return pool;
}

typedef struct {
    tercio_pool *pool;
    tercio_run *answered, *running[2], *behind[N_BEHIND];
    tercio_result result; /* of `answered`, large, and out */
    signpost post;
    int files[2];
} scene;

/* Until this thread and those that run tasks are the only ones that don't sleep: the supervisor changes nothing then. */
static void wait_until_quiet(unsigned n_tasks)
{
    unsigned n_awake;
    do {
        DIR *threads = opendir("/proc/self/task");
        n_awake = 0;
        for (struct dirent *thread; (thread = readdir(threads)) != NULL;) {
            char path[300], text[128] = "";
            (void)snprintf(path, sizeof path, "/proc/self/task/%s/stat", thread->d_name);
            int fd = open(path, O_RDONLY | O_CLOEXEC);
            if (thread->d_name[0] != '.' && fd >= 0 && read(fd, text, sizeof text - 1) > 0)
                n_awake += strstr(text, ") S ") == NULL;
            close(fd);
        }
        closedir(threads);
    } while (n_awake > 1 + n_tasks);
}

static scene begin(void **state)
{
    static unsigned char large[LARGE_IN];
    scene s = {.result = {.size = sizeof s.result}};
    uint32_t id;
    signpost_open(&s.post);
    assert_int_equal(pipe2(s.files, O_CLOEXEC), 0);
    s.pool = open_own(method_of(state), s.files, 2);
    assert_int_equal(tercio_share(s.pool, TERCIO_READONLY, (tercio_bytes){large, sizeof large}, &id), 0);
    assert_int_equal(tercio_submit(s.pool, LARGE, (tercio_bytes){large, sizeof large}, NULL, &s.answered), 0);
    assert_int_equal(tercio_next(s.answered, BOUND_SECONDS, &s.result), 1);
    assert_int_equal(s.result.status, 0);
    assert_int_equal(s.result.out.size, LARGE_OUT);
    size_t descriptors = count_descriptors();
    for (int i = 0; i < 2; i++)
        assert_int_equal(tercio_submit(s.pool, BLOCK, signpost_input(&s.post), NULL, &s.running[i]), 0);
    signpost_wait(&s.post, 2);
    while (count_descriptors() != descriptors) /* a thread that has written there has yet to close it */
        sched_yield();
    for (int i = 0; i < N_BEHIND; i++) /* in rings, and in the pool */
        assert_int_equal(tercio_submit(s.pool, ECHO, (tercio_bytes){large, i % 2 ? 40 : LARGE_IN}, NULL, &s.behind[i]),
                         0);
    wait_until_quiet(method_of(state) == TERCIO_THREADING ? 2 : 0);
    return s;
}

/* The parent's pool is as it was. */
static void go_on(scene *s)
{
    int64_t in[] = {1, 2, 3}, out[3] = {0};
    const unsigned char *large = s->result.out.data;
    assert_int_equal(large[0], 1);
    assert_int_equal(large[LARGE_OUT - 1], 1);
    for (int i = 0; i < 2; i++)
        (void)tercio_cancel(s->running[i], 0);
    assert_int_equal(tercio_map(s->pool, DOUBLE, in, 8, 3, out, NULL, NULL), 0);
    assert_int_equal(out[2], 6);
}

static void close_runs(scene *s)
{
    tercio_release(s->answered, &s->result);
    tercio_run_close(s->answered);
    for (int i = 0; i < 2; i++)
        tercio_run_close(s->running[i]);
    for (int i = 0; i < N_BEHIND; i++)
        tercio_run_close(s->behind[i]);
}

static void end(scene *s)
{
    close_runs(s);
    tercio_close(s->pool);
    signpost_close(&s->post);
    close(s->files[0]);
    close(s->files[1]);
}

static void close_copy(scene *s, bool pool_first)
{
    tercio_result none = {.size = sizeof none};
    if (pool_first)
        tercio_close(s->pool);
    CHECK(tercio_next(s->running[0], -1, &none) == TERCIO_EFORKED);
    CHECK(((const unsigned char *)s->result.out.data)[LARGE_OUT - 1] == 1);
    close_runs(s);
    if (!pool_first)
        tercio_close(s->pool);
}

static pid_t fork_a_child(void)
{
    fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        alarm(BOUND_SECONDS);
    return pid;
}

/* ---- Tests ---------------------------------------------------------------------------------------------------------------- */

#if defined(__SANITIZE_ADDRESS__)
int __lsan_do_recoverable_leak_check(void);
#else
static int __lsan_do_recoverable_leak_check(void)
{
    return 0;
}
#endif

/* What a thread has for itself (its call, what it has received) is out of reach when it is gone. */
enum { MOST_OF_A_THREAD = 8 };

static void expect(belongings before, long most)
{
    belongings now = count_belongings();
    if (now.descriptors != before.descriptors || (counts && now.mappings > before.mappings) ||
        now.allocated > before.allocated + most || now.allocated < before.allocated)
        fprintf(stderr, "descriptors: %zu before, %zu now; mappings: %zu, %zu; allocated: %ld, %ld\n",
                before.descriptors, now.descriptors, before.mappings, now.mappings, before.allocated, now.allocated);
    CHECK(now.descriptors == before.descriptors);
    CHECK(most || __lsan_do_recoverable_leak_check() == 0);
    CHECK(!counts || now.mappings <= before.mappings);
    CHECK(now.allocated <= before.allocated + most && now.allocated >= before.allocated);
}

static void a_copy_is_freed(void **state)
{
    long most = method_of(state) == TERCIO_THREADING ? 2 * MOST_OF_A_THREAD : 0;
    for (int round = 0; round < 3; round++) {
        belongings before = count_belongings();
        scene s = begin(state);
        for (int pool_first = 0; pool_first < 2 && round; pool_first++) { /* the first round is for stacks and arenas */
            pid_t child = fork_a_child();
            if (child == 0) {
                close_copy(&s, pool_first);
                signpost_close(&(signpost){.fd = s.post.fd});
                close(s.files[0]);
                close(s.files[1]);
                expect(before, most);
                _exit(0);
            }
            assert_int_equal(wait_status(child), 0);
        }
        go_on(&s);
        end(&s);
    }
}

static void in_a_grandchild(void **state)
{
    belongings before = count_belongings();
    scene s = begin(state);
    pid_t child = fork_a_child();
    if (child == 0) {
        pid_t grandchild = fork_a_child();
        close_copy(&s, grandchild == 0);
        signpost_close(&(signpost){.fd = s.post.fd});
        close(s.files[0]);
        close(s.files[1]);
        CHECK(count_belongings().descriptors == before.descriptors);
        _exit(grandchild == 0 ? 0 : wait_status(grandchild));
    }
    assert_int_equal(wait_status(child), 0);
    go_on(&s);
    end(&s);
}

/* The child has closed them by itself, and others have their numbers: files, and what a pool of its own has open. */
static void numbers_that_are_others_by_now(void **state)
{
    enum { MANY = 64 };
#if defined(__SANITIZE_THREAD__)
    skip(); /* it has no threads in a child of a process with threads */
#endif
    scene s = begin(state);
    pid_t child = fork_a_child();
    if (child == 0) {
        int64_t in = 4, out = 0;
        int fd, last = -1;
        for (fd = STDERR_FILENO + 1; fd < MANY; fd++)
            close(fd);
        tercio_pool *own = open_own(TERCIO_THREADING, NULL, 0), *other = NULL;
        if (method_of(state) != TERCIO_THREADING)
            other = open_own(method_of(state), NULL, 0);
        while ((fd = open("/dev/null", O_RDWR | O_CLOEXEC)) >= 0 && fd < MANY)
            last = fd;
        size_t before = count_descriptors();
        close_copy(&s, true);
        CHECK(last > 0 && count_descriptors() == before);
        CHECK(tercio_map(own, DOUBLE, &in, 8, 1, &out, NULL, NULL) == 0 && out == 8);
        tercio_close(own);
        if (other)
            CHECK(tercio_map(other, DOUBLE, &in, 8, 1, &out, NULL, NULL) == 0);
        tercio_close(other);
        _exit(0);
    }
    assert_int_equal(wait_status(child), 0);
    go_on(&s);
    end(&s);
}

/* A worker that is forked when the pool is open has a copy of it, and needs three of the descriptors. */
static void a_task_that_closes_its_workers_copy(void **state)
{
    if (method_of(state) != TERCIO_FORK)
        skip();
    int64_t die[4] = {BY_SIGNAL, BY_SIGNAL, BY_SIGNAL, BY_SIGNAL}, in[20] = {0}, out[20];
    tercio_map_options each = {.size = sizeof each, .chunk = 1};
    tercio_pool *pool = open_own(TERCIO_FORK, NULL, 0);
    the_pool = pool;
    assert_int_equal(tercio_map(pool, DIE, die, 8, 4, out, &each, NULL), 4);
    for (int i = 0; i < 20; i++)
        in[i] = i;
    for (unsigned task = CLOSE_COPY; task < CLOSE_COPY + 1; task++)
        for (int round = 0; round < 5; round++) {
            assert_int_equal(tercio_map(pool, task, in, 8, 20, out, &each, NULL), 0);
            assert_int_equal(out[19], 38);
        }
    the_pool = NULL;
    assert_int_equal(tercio_finish(pool, BOUND_SECONDS, NULL, NULL), 0);
    tercio_close(pool);
}

/* ---- Beside threads that are in the middle of calls -------------------------------------------------------------------- */

static _Atomic bool stops;

static void *map_on_and_on(void *data)
{
    int64_t in[64] = {0}, out[64];
    while (!atomic_load(&stops))
        if (tercio_map(data, DOUBLE, in, 8, 64, out, NULL, NULL))
            return data;
    return NULL;
}

static void *stream_on_and_on(void *data)
{
    tercio_result result = {.size = sizeof result};
    int64_t in = 1;
    while (!atomic_load(&stops)) {
        tercio_run *run = NULL;
        if (tercio_submit(data, DOUBLE, (tercio_bytes){&in, 8}, NULL, &run))
            return data;
        if (tercio_next(run, BOUND_SECONDS, &result) != 1)
            return data;
        tercio_release(run, &result);
        tercio_run_close(run);
    }
    return NULL;
}

static void forks_beside_callers(void **state)
{
    pthread_t threads[2];
    size_t before = count_descriptors();
    tercio_pool *pool = open_own(method_of(state), NULL, 0);
    int64_t in = 3;
    tercio_run *run;
    assert_int_equal(tercio_submit(pool, DOUBLE, (tercio_bytes){&in, 8}, NULL, &run), 0);
    atomic_store(&stops, false);
    assert_int_equal(pthread_create(&threads[0], NULL, map_on_and_on, pool), 0);
    assert_int_equal(pthread_create(&threads[1], NULL, stream_on_and_on, pool), 0);
    for (int i = 0; i < (SANITIZED ? 30 : 200); i++) {
        pid_t child = fork_a_child();
        if (child == 0) {
            if (i % 2)
                tercio_run_close(run);
            tercio_close(pool);
            if (i % 2 == 0)
                tercio_run_close(run);
            CHECK(count_descriptors() <= before + 3); /* those of calls that the child doesn't have */
            _exit(0);
        }
        assert_int_equal(wait_status(child), 0);
    }
    atomic_store(&stops, true);
    for (int i = 0; i < 2; i++) {
        void *failed = NULL;
        pthread_join(threads[i], &failed);
        assert_null(failed);
    }
    tercio_run_close(run);
    tercio_close(pool);
}

#ifndef __SANITIZE_THREAD__
static void *finish(void *pool)
{
    return tercio_finish(pool, 0, NULL, NULL) == 0 ? NULL : pool;
}

static void *overwrite_a_stack(void *none)
{
    volatile char large[128 << 10];
    for (size_t i = 0; i < sizeof large; i++)
        large[i] = (char)0xa5;
    return none;
}

/* What a caller that waits has written down lies on its stack, which a thread of the child gets. */
static void forks_beside_one_that_waits(void **state)
{
    pthread_t thread;
    signpost post;
    tercio_run *run;
    tercio_pool *pool = open_own(method_of(state), NULL, 0);
    signpost_open(&post);
    assert_int_equal(tercio_submit(pool, BLOCK, signpost_input(&post), NULL, &run), 0);
    signpost_wait(&post, 1);
    assert_int_equal(pthread_create(&thread, NULL, finish, pool), 0);
    for (int i = 0; i < 20; i++) {
        pid_t child = fork_a_child();
        if (child == 0) {
            pthread_t own;
            CHECK(pthread_create(&own, NULL, overwrite_a_stack, NULL) == 0);
            CHECK(pthread_join(own, NULL) == 0);
            tercio_close(pool);
            tercio_run_close(run);
            _exit(0);
        }
        assert_int_equal(wait_status(child), 0);
    }
    assert_int_equal(tercio_cancel(run, 0), 0);
    void *failed = NULL;
    pthread_join(thread, &failed);
    assert_null(failed);
    tercio_run_close(run);
    tercio_close(pool);
    signpost_close(&post);
}
#endif

static const face_test tests[] = {
    FACE_TEST(a_copy_is_freed),
    FACE_TEST(in_a_grandchild),
    FACE_TEST(numbers_that_are_others_by_now),
    FACE_TEST(a_task_that_closes_its_workers_copy),
    FACE_TEST(forks_beside_callers),
#ifndef __SANITIZE_THREAD__ /* it ends a forked child that starts a thread */
    FACE_TEST(forks_beside_one_that_waits),
#endif
};

int main(int argc, char **argv)
{
    tercio_worker_entry(argc, argv, own_table());
    return run_for_each_method("forked", tests, sizeof tests / sizeof *tests, argc > 1 ? argv[1] : NULL);
}
