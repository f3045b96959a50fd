/* SPDX-License-Identifier: MIT
 *
 * The engine's promises one at a time: cancelling, descriptors to poll, deaths of the parent and of the
 * server, failures to start, applications with habits of their own, and rest.
 */
#include <sys/prctl.h>
#include <sys/resource.h>

#include "battery.h"

/* ---- Cancelling ------------------------------------------------------------------------------------------------------ */

static void cancelled_queued_and_running(void **state)
{
    enum { QUEUED = 20 };
    tercio_pool *pool = open_pool(state, 1);
    tercio_run *running, *queued[QUEUED];
    tercio_result result = {.size = sizeof result};
    signpost post;
    item in = {0};
    signpost_open(&post);
    assert_int_equal(tercio_submit(pool, LISTEN, signpost_input(&post), NULL, &running), 0);
    signpost_wait(&post, 1);
    for (uint32_t i = 0; i < QUEUED; i++) {
        in.index = i;
        assert_int_equal(tercio_submit(pool, WORK, (tercio_bytes){&in, sizeof in}, NULL, &queued[i]), 0);
    }
    for (int i = 0; i < QUEUED; i += 2)
        assert_int_equal(tercio_cancel(queued[i], 0), 0);
    assert_int_equal(tercio_cancel(running, 0), 0);
    assert_int_equal(tercio_next(running, -1, &result), 1);
    tercio_release(running, &result);
    for (uint32_t i = 0; i < QUEUED; i++) {
        assert_int_equal(tercio_next(queued[i], -1, &result), 1);
        assert_int_equal(result.status, i % 2 ? 0 : TERCIO_ECANCELED);
        assert_int_equal(the_ledger->begun[i], i % 2);
        tercio_release(queued[i], &result);
        tercio_run_close(queued[i]);
    }
    tercio_run_close(running);
    signpost_close(&post);
    tercio_close(pool);
}

/* ---- Who gets what ---------------------------------------------------------------------------------------------- */

typedef struct {
    const item *in;
    size_t n, next;
} upcoming;

static int next_upcoming(void *user, tercio_bytes *input)
{
    upcoming *source = user;
    if (source->next == source->n)
        return 0;
    *input = (tercio_bytes){&source->in[source->next++], sizeof *source->in};
    return 1;
}

static void stop_worker(int pid)
{
    char path[64], how = 0;
    (void)snprintf(path, sizeof path, "/proc/%d/stat", pid);
    assert_int_equal(kill(pid, SIGSTOP), 0);
    while (how != 'T') { /* it may have been about to look for work */
        FILE *file = fopen(path, "r");
        assert_non_null(file);
        assert_int_equal(fscanf(file, "%*d (%*[^)]) %c", &how), 1);
        fclose(file);
    }
}

/* A worker that is slow to wake, or to start, gets its first message all the same: others take what is behind it. */
static void the_first_message_is_not_taken_back(void **state)
{
    enum { N = 6 };
    skip_threads(state); /* they can't be stopped one by one */
    tercio_pool *pool = open_pool(state, 2);
    tercio_map_options options = {.size = sizeof options, .unordered = true, .max_active = N};
    tercio_result result = {.size = sizeof result};
    tercio_stats stats[2] = {{.size = sizeof stats[0]}};
    item *in = items_of(N, 0);
    upcoming source = {.in = in, .n = N};
    tercio_run *run;
    int pids[2];
    tercio_worker_pids(pool, pids, 2);
    for (int stopped = 0; stopped < 2; stopped++) {
        stop_worker(pids[stopped]);
        source.next = 0;
        assert_int_equal(tercio_stream(pool, WORK, next_upcoming, &source, &options, &run), 0);
        for (int i = 0; i < N - 1; i++) {
            assert_int_equal(tercio_next(run, -1, &result), 1);
            assert_int_equal(result.worker, !stopped);
            tercio_release(run, &result);
        }
        do /* until the other one has nothing to do: then it looks for work */
            assert_int_equal(tercio_get_stats(pool, stats, 2), 2);
        while (stats[!stopped].state != TERCIO_STATE_WAIT);
        for (int i = 0; i < 3; i++)
            assert_int_equal(tercio_next(run, 0, &result), TERCIO_EAGAIN);
        assert_int_equal(kill(pids[stopped], SIGCONT), 0);
        assert_int_equal(tercio_next(run, -1, &result), 1);
        assert_int_equal(result.worker, stopped);
        tercio_release(run, &result);
        assert_int_equal(tercio_next(run, -1, &result), 0);
        tercio_run_close(run);
    }
    free(in);
    tercio_close(pool);
}

/* ---- A descriptor to poll ------------------------------------------------------------------------------------------------ */

static int next_of_ten(void *user, tercio_bytes *input)
{
    static item in;
    uint32_t *at = user;
    if (*at == 10)
        return 0;
    in.index = (*at)++;
    *input = (tercio_bytes){&in, sizeof in};
    return 1;
}

static void polled_one_result_at_a_time(void **state)
{
    tercio_pool *pool = open_pool(state, 2);
    tercio_run *run;
    tercio_result result = {.size = sizeof result};
    uint32_t at = 0;
    int got, n = 0;
    assert_int_equal(tercio_stream(pool, WORK, next_of_ten, &at, NULL, &run), 0);
    struct pollfd polled = {.fd = tercio_run_fd(run), .events = POLLIN};
    assert_true(polled.fd >= 0);
    for (bool first = true;; first = false) {
        if (!first)                                                     /* the first call sends something off */
            assert_int_equal(poll(&polled, 1, BOUND_SECONDS * 500), 1); /* milliseconds: half of the bound */
        got = tercio_next(run, 0, &result);
        if (got == 0)
            break;
        if (got == TERCIO_EAGAIN)
            continue;
        assert_int_equal(got, 1);
        assert_int_equal(result.index, n++);
        tercio_release(run, &result);
    }
    assert_int_equal(n, 10);
    tercio_run_close(run);
    tercio_close(pool);
}

/* ---- Ends --------------------------------------------------------------------------------------------------------------- */

static int handle_on(int pid)
{
    int fd = (int)syscall(SYS_pidfd_open, pid, 0, 0, 0, 0, 0x7e57); /* refuse.c */
    assert_true(fd >= 0 || errno == ESRCH);
    return fd;
}

/* Waits until all of these are gone. */
static void all_end(int *handles, int n)
{
    for (int i = 0; i < n; i++) {
        struct pollfd polled = {.fd = handles[i], .events = POLLIN};
        if (handles[i] < 0)
            continue;
        assert_int_equal(poll(&polled, 1, BOUND_SECONDS * 500), 1);
        close(handles[i]);
    }
}

enum { WORKERS = 3 };

typedef struct {
    void **state;
    const signpost *post;
    unsigned doing;
    int talk;
} doomed;

static void *open_and_wait(void *data)
{
    const doomed *told = data;
    tercio_options options = options_of(told->state, WORKERS);
    tercio_pool *pool;
    tercio_run *runs[WORKERS];
    tercio_result result = {.size = sizeof result};
    int pids[WORKERS + 1] = {0};
    item in = {.ns = UINT64_C(1000000000000)};
    tercio_bytes input = told->doing == WORK ? (tercio_bytes){&in, sizeof in} : signpost_input(told->post);
    if (tercio_open(&pool, &options))
        _exit(1);
    for (int i = 0; i < WORKERS; i++)
        if (tercio_submit(pool, told->doing, input, NULL, &runs[i]))
            _exit(2);
    tercio_worker_pids(pool, pids, WORKERS);
    if (write(told->talk, pids, sizeof pids) != sizeof pids)
        _exit(3);
    (void)tercio_next(runs[0], -1, &result);
    _exit(4);
}

/* The parent of the pool is a child of ours, which is killed. Its main thread has opened the pool, or another one, and
 * what its workers do may listen to signals or block them all. */
static void parent_is_killed(void **state)
{
    skip_threads(state);
    static const unsigned doing[] = {WORK, SLEEP, LISTEN, STUCK};
    for (size_t k = 0; k < 2 * (sizeof doing / sizeof *doing); k++) {
        int pids[WORKERS + 1] = {0}, handles[WORKERS + 1], talk[2];
        signpost post;
        signpost_open(&post);
        assert_int_equal(pipe2(talk, O_CLOEXEC), 0);
        doomed told = {.state = state, .post = &post, .doing = doing[k / 2], .talk = talk[1]};
        fflush(NULL);
        pid_t parent = fork();
        if (parent == 0) {
            pthread_t thread;
            alarm(BOUND_SECONDS);
            if (k % 2 == 0)
                open_and_wait(&told);
            if (pthread_create(&thread, NULL, open_and_wait, &told))
                _exit(5);
            pthread_join(thread, NULL);
            _exit(6);
        }
        assert_true(parent > 0);
        assert_int_equal(read(talk[0], pids, sizeof pids), sizeof pids);
        for (int i = 0; i < WORKERS; i++)
            handles[i] = handle_on(pids[i]);
        if (told.doing != WORK)
            signpost_wait(&post, WORKERS);
        kill(parent, SIGKILL);
        assert_int_equal(waitpid(parent, NULL, 0), parent);
        all_end(handles, WORKERS);
        close(talk[0]);
        close(talk[1]);
        signpost_close(&post);
    }
}

static int opener;

static void *open_and_end(void *data)
{
    tercio_options options = options_of(data, 2);
    tercio_pool *pool;
    opener = (int)syscall(SYS_gettid);
    return tercio_open(&pool, &options) ? NULL : pool;
}

/* The thread that opened a pool may end before it. */
static void the_thread_that_opened_it_ends(void **state)
{
    void *pool;
    pthread_t thread;
    char path[64];
    int before[2], after[2];
    assert_int_equal(pthread_create(&thread, NULL, open_and_end, state), 0);
    assert_int_equal(pthread_join(thread, &pool), 0);
    assert_non_null(pool);
    tercio_worker_pids(pool, before, 2);
    (void)snprintf(path, sizeof path, "/proc/self/task/%d", opener);
    while (access(path, F_OK) == 0)
        sched_yield(); /* joined is a little before gone */
    for (int i = 0; i < 10; i++)
        still_works(pool);
    tercio_worker_pids(pool, after, 2);
    assert_memory_equal(before, after, sizeof before);
    tercio_close(pool);
}

static int parent_of(int pid)
{
    char path[64];
    int parent = 0;
    (void)snprintf(path, sizeof path, "/proc/%d/stat", pid);
    FILE *file = fopen(path, "r");
    if (file && fscanf(file, "%*d (%*[^)]) %*c %d", &parent) != 1)
        parent = 0;
    if (file)
        fclose(file);
    return parent;
}

static void server_is_killed(void **state)
{
    if (method_of(state) != TERCIO_FORKSERVER)
        skip();
    for (int busy = 0; busy < 2; busy++) {
        tercio_pool *pool = open_pool(state, 2);
        tercio_run *run;
        tercio_result result = {.size = sizeof result};
        signpost post;
        int pids[2], handles[2];
        signpost_open(&post);
        tercio_worker_pids(pool, pids, 2);
        for (int i = 0; i < 2; i++)
            handles[i] = handle_on(pids[i]);
        int server = parent_of(pids[0]);
        assert_true(server > 1 && server != getpid());
        if (busy) {
            assert_int_equal(tercio_submit(pool, SLEEP, signpost_input(&post), NULL, &run), 0);
            signpost_wait(&post, 1);
        }
        kill(server, SIGKILL);
        all_end(handles, 2);
        if (busy) {
            int got = tercio_next(run, -1, &result);
            if (got == 1) { /* the item's own death may come first */
                assert_int_equal(result.status, TERCIO_EDIED);
                tercio_release(run, &result);
            } else {
                assert_int_equal(got, TERCIO_ESTART);
            }
            tercio_run_close(run);
        }
        /* The pool can't go on, and whoever asks hears so. */
        item in = {0};
        uint64_t out;
        int answer = tercio_map(pool, WORK, &in, sizeof in, 1, &out, NULL, &result);
        assert_int_equal(answer, TERCIO_ESTART);
        tercio_close(pool);
        signpost_close(&post);
    }
    tercio_pool *pool = open_pool(state, 2);
    still_works(pool);
    tercio_close(pool);
}

/* ---- Failures to start ---------------------------------------------------------------------------------------------------- */

static void no_descriptors_left(void **state)
{
    struct rlimit before, low;
    size_t had = count_descriptors();
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    int opened = 0;
    for (rlim_t more = 0; more < 16; more++) {
        tercio_options options = options_of(state, 3);
        tercio_pool *pool;
        low = before;
        low.rlim_cur = (rlim_t)had + more;
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
        int error = tercio_open(&pool, &options);
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
        if (error == 0) {
            opened++;
            tercio_close(pool);
        } else {
            assert_true(error == TERCIO_ESYSTEM || error == TERCIO_ESTART);
            assert_null(pool);
        }
        if (waitpid(-1, NULL, WNOHANG) != -1 || errno != ECHILD || count_descriptors() != had) {
            print_error("with room for %d descriptors something is left\n", (int)more);
            fail();
        }
    }
    assert_true(opened > 0);
    tercio_pool *pool = open_pool(state, 3);
    still_works(pool);
    tercio_close(pool);
}

/* ---- Applications with habits ------------------------------------------------------------------------------------------------ */

static void one_dies(tercio_pool *pool, uint32_t how, tercio_result *first)
{
    item in = {.index = 1, .how = how};
    uint64_t out;
    *first = (tercio_result){.size = sizeof *first};
    assert_int_equal(tercio_map(pool, HOW, &in, sizeof in, 1, &out, NULL, first), 1);
    assert_int_equal(first->status, TERCIO_EDIED);
}

static void ignores_sigchld(void **state)
{
    skip_threads(state);
    tercio_result first;
    signal(SIGCHLD, SIG_IGN);
    tercio_pool *pool = open_pool(state, 2);
    for (uint32_t how = BY_KILL; how <= BY_ABORT; how++) {
        one_dies(pool, how, &first);
        /* What can't be known is said to be unknown, never invented. */
        assert_true(first.signal == 0 || how == BY_KILL || how == BY_SEGV || how == BY_ABORT);
        assert_true(first.code == -1 || (how == BY_EXIT_0 && first.code == 0) || (how == BY_EXIT_3 && first.code == 3));
    }
    still_works(pool);
    tercio_close(pool);
    signal(SIGCHLD, SIG_DFL);
}

static void *collect_every_child(void *data)
{
    _Atomic bool *stops = data;
    siginfo_t info;
    while (!atomic_load(stops)) {
        /* With no child there is nothing to wait for, and that comes and goes. */
        if (waitid(P_ALL, 0, &info, WEXITED) && errno == ECHILD)
            sched_yield();
    }
    return NULL;
}

static void collects_every_child_itself(void **state)
{
    skip_threads(state);
    _Atomic bool stops = false;
    pthread_t thread;
    tercio_result first;
    tercio_pool *pool = open_pool(state, 2);
    assert_int_equal(pthread_create(&thread, NULL, collect_every_child, &stops), 0);
    for (int round = 0; round < 5; round++)
        for (uint32_t how = BY_KILL; how <= BY_EXIT_3; how++)
            one_dies(pool, how, &first);
    still_works(pool);
    atomic_store(&stops, true);
    tercio_close(pool);
    pthread_join(thread, NULL);
}

/* ---- Rest ---------------------------------------------------------------------------------------------------------------------- */

/* How often the threads of a process have slept and woken, and the time that they used, in one number. */
static uint64_t stirrings(int pid)
{
    char path[320], line[256];
    uint64_t sum = 0;
    (void)snprintf(path, sizeof path, "/proc/%d/task", pid);
    DIR *folder = opendir(path);
    for (struct dirent *entry; folder && (entry = readdir(folder)) != NULL;) {
        unsigned long long n;
        if (entry->d_name[0] == '.')
            continue;
        (void)snprintf(path, sizeof path, "/proc/%d/task/%s/status", pid, entry->d_name);
        /* The thread that looks stirs itself. */
        FILE *file = atoi(entry->d_name) == (int)syscall(SYS_gettid) ? NULL : fopen(path, "r");
        while (file && fgets(line, sizeof line, file))
            if (sscanf(line, "voluntary_ctxt_switches: %llu", &n) == 1)
                sum += n;
        if (file)
            fclose(file);
    }
    if (folder)
        closedir(folder);
    return sum;
}

/* Time is the subject here: nothing happens while it passes. */
static void rests(void **state)
{
    if (SLOW)
        skip(); /* a sanitizer's own threads stir */
    tercio_pool *pool = open_pool(state, WORKERS);
    int pids[WORKERS];
    uint64_t before[WORKERS + 1], after[WORKERS + 1];
    still_works(pool);
    tercio_worker_pids(pool, pids, WORKERS);
    /* They settle first: looking for work goes on for some microseconds. */
    nanosleep(&(struct timespec){.tv_nsec = 200000000}, NULL);
    for (int i = 0; i <= WORKERS; i++)
        before[i] = i == WORKERS ? stirrings(getpid()) : pids[i] ? stirrings(pids[i]) : 0;
    nanosleep(&(struct timespec){.tv_sec = 1}, NULL);
    for (int i = 0; i <= WORKERS; i++) {
        after[i] = i == WORKERS ? stirrings(getpid()) : pids[i] ? stirrings(pids[i]) : 0;
        assert_int_equal(after[i], before[i]);
    }
    still_works(pool);
    tercio_close(pool);
}

int main(int argc, char **argv)
{
    static const battery_test tests[] = {
        BATTERY_TEST(cancelled_queued_and_running),
        BATTERY_TEST(the_first_message_is_not_taken_back),
        BATTERY_TEST(polled_one_result_at_a_time),
        BATTERY_TEST(parent_is_killed),
        BATTERY_TEST(the_thread_that_opened_it_ends),
        BATTERY_TEST(server_is_killed),
        BATTERY_TEST(no_descriptors_left),
        BATTERY_TEST(ignores_sigchld),
        BATTERY_TEST(collects_every_child_itself),
        BATTERY_TEST(rests),
    };
    tercio_worker_entry(argc, argv, &table);
    return run_battery("engine", tests, sizeof tests / sizeof *tests, argc > 1 ? argv[1] : NULL);
}
