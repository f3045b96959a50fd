/* SPDX-License-Identifier: MIT
 *
 * Processes by handle, as the platform has them: starting, ends, signals, the parent's death.
 */
#include "entries.h"
#include "plat_bed.h"

static tercio__exit end_of(int handle, int pid)
{
    tercio__exit how;
    assert_int_equal(tercio__bells_wait(&handle, 1, tercio__deadline(patience), NULL), 1);
    assert_int_equal(tercio__process_reap(handle, pid, &how), 0);
    close(handle);
    return how;
}

static int spawn(const char *const *argv, const int *keep, size_t n, int *handle)
{
    return tercio__spawn((char *const *)(uintptr_t)argv, keep, n, 0, false, handle);
}

static tercio__exit outcome(const char *const *argv, const int *keep, size_t n)
{
    int handle, pid = spawn(argv, keep, n, &handle);
    assert_true(pid > 0);
    assert_true(is_cloexec(handle));
    return end_of(handle, pid);
}

#define ARGV(...) ((const char *const[]){__VA_ARGS__, NULL})

static void test_spawn_and_exit_codes(void **state)
{
    (void)state;
    tercio__exit how = outcome(ARGV("/bin/true"), NULL, 0);
    assert_int_equal(how.code, 0);
    assert_int_equal(how.signal, 0);
    assert_true(how.peak_rss > 0);
    assert_int_equal(outcome(ARGV("false"), NULL, 0).code, 1); /* found by PATH */
    assert_int_equal(outcome(ARGV("sh", "-c", "exit 201"), NULL, 0).code, 201);
    how = outcome(ARGV("sh", "-c", "kill -ABRT $$"), NULL, 0);
    assert_int_equal(how.code, -1);
    assert_int_equal(how.signal, SIGABRT);
}

static void test_spawn_errors_are_the_callers(void **state)
{
    (void)state;
    int handle, free_fd = lowest_free_fd();
    errno = 0;
    assert_int_equal(spawn(ARGV("/nowhere/at/all"), NULL, 0, &handle), TERCIO_ESYSTEM);
    assert_int_equal(errno, ENOENT);
    assert_int_equal(handle, -1);
    assert_int_equal(spawn(ARGV("no-such-program-of-ours"), NULL, 0, &handle), TERCIO_ESYSTEM);
    assert_int_equal(errno, ENOENT);
    assert_int_equal(spawn(ARGV("/etc/passwd"), NULL, 0, &handle), TERCIO_ESYSTEM);
    assert_int_equal(errno, EACCES);
    int bad = 1000;
    assert_int_equal(spawn(ARGV("/bin/true"), &bad, 1, &handle), TERCIO_ESYSTEM);
    assert_int_equal(errno, EBADF);
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1); /* no zombie */
    assert_int_equal(errno, ECHILD);
    assert_int_equal(lowest_free_fd(), free_fd);
}

static void test_spawn_keeps_descriptors(void **state)
{
    (void)state;
    int pipes[2];
    char command[64], text[8] = "";
    assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
    snprintf(command, sizeof command, "echo hi >&%d", pipes[1]);
    assert_int_equal(outcome(ARGV("sh", "-c", command), &pipes[1], 1).code, 0);
    assert_int_equal(read(pipes[0], text, 3), 3);
    assert_string_equal(text, "hi\n");
    assert_true(is_cloexec(pipes[1])); /* opened in the child alone */
    snprintf(command, sizeof command, "test ! -e /proc/self/fd/%d && test -e /proc/self/fd/%d", pipes[0], pipes[1]);
    assert_int_equal(outcome(ARGV("sh", "-c", command), &pipes[1], 1).code, 0);
    close(pipes[0]);
    close(pipes[1]);
}

static void test_spawn_signals(void **state)
{
    (void)state;
    struct sigaction action = {.sa_handler = count_signal}, ignore = {.sa_handler = SIG_IGN}, handler, ignored;
    sigset_t all, old, after;
    sigaction(SIGUSR1, &action, &handler);
    sigaction(SIGUSR2, &ignore, &ignored);
    sigfillset(&all);
    sigemptyset(&old);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    assert_int_equal(outcome(ARGV("true"), NULL, 0).code, 0);
    pthread_sigmask(SIG_BLOCK, &all, &after);
    for (int s = 1; s < NSIG; s++)
        assert_int_equal(sigismember(&old, s), sigismember(&after, s));
    sigset_t during;
    pthread_sigmask(SIG_BLOCK, NULL, &during);
    assert_int_equal(outcome(ARGV("grep", "-q", "^SigBlk:[[:space:]]*0*$", "/proc/self/status"), NULL, 0).code, 0);
    assert_int_equal(outcome(ARGV("grep", "-q", "^SigIgn:.*[89a-f]..$", "/proc/self/status"), NULL, 0).code, 0);
    const char *const *clean = ARGV("grep", "-q", "^SigIgn:.*[0-7]..$", "/proc/self/status");
    const char *const *blocked = ARGV("grep", "-q", "^SigBlk:[[:space:]]*0*204$", "/proc/self/status");
    int handle, pid = tercio__spawn((char *const *)(uintptr_t)clean, NULL, 0, 0, true, &handle);
    assert_int_equal(end_of(handle, pid).code, 0);
    uint64_t mask = UINT64_C(1) << (SIGUSR1 - 1) | UINT64_C(1) << (SIGQUIT - 1);
    pid = tercio__spawn((char *const *)(uintptr_t)blocked, NULL, 0, mask, false, &handle);
    assert_int_equal(end_of(handle, pid).code, 0);
    pthread_sigmask(SIG_BLOCK, NULL, &after);
    for (int s = 1; s < NSIG; s++)
        assert_int_equal(sigismember(&during, s), sigismember(&after, s));
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    struct sigaction still;
    sigaction(SIGUSR1, NULL, &still);
    assert_true(still.sa_handler == count_signal); /* the child's defaults are its own */
    sigaction(SIGUSR1, &handler, NULL);
    sigaction(SIGUSR2, &ignored, NULL);
}

static char hear(int fd);

static int fork_and_look(int signal, void (*handler)(int), uint64_t blocked)
{
    pid_t pid = fork();
    if (pid == 0) {
        struct sigaction action;
        sigaction(signal, NULL, &action);
        _exit(action.sa_handler == handler && tercio__signals_blocked() == blocked ? 0 : 1);
    }
    return WEXITSTATUS(wait_status(pid));
}

/* In a child: what a worker takes is there, what it doesn't need is as it was, and forks have all as it was. */
static int live_as_worker(void)
{
    enum { interrupt = 42 };
    const uint64_t needed = UINT64_C(1) << (interrupt - 1), usr1 = UINT64_C(1) << (SIGUSR1 - 1);
    struct sigaction own = {.sa_handler = count_signal}, now;
    (void)tercio_fork_generation(); /* watches forks from here on */
    sigaction(SIGINT, &own, NULL);
    tercio__signals_ignore(UINT64_C(1) << (SIGUSR2 - 1));
    tercio__signals_enter(needed | usr1, interrupt);
    if (tercio__signals_blocked() != usr1 || !(tercio__signals_ignored() >> (SIGUSR2 - 1) & 1))
        return 2;
    sigaction(SIGINT, NULL, &now);
    if (now.sa_handler == SIG_IGN || now.sa_handler == SIG_DFL || now.sa_handler == count_signal)
        return 3;
    if (fork_and_look(SIGINT, count_signal, needed | usr1) || fork_and_look(interrupt, SIG_DFL, needed | usr1))
        return 4;
    if (tercio__signals_blocked() != usr1)
        return 5;
    tercio__signal_take(SIGTERM, NULL, 0);
    sigaction(SIGTERM, &own, NULL);
    if (fork_and_look(SIGTERM, SIG_DFL, needed | usr1))
        return 6;
    own.sa_handler = SIG_IGN; /* the task's own: its forks have it */
    sigaction(SIGINT, &own, NULL);
    return fork_and_look(SIGINT, SIG_IGN, needed | usr1) ? 7 : 0;
}

static void test_signals_of_a_worker(void **state)
{
    (void)state;
    pid_t pid = fork();
    if (pid == 0)
        _exit(live_as_worker());
    assert_int_equal(WEXITSTATUS(wait_status(pid)), 0);
}

static void test_signals_by_handle(void **state)
{
    (void)state;
    tercio__exit how;
    int handle, pid = spawn(ARGV("sleep", "1000"), NULL, 0, &handle);
    assert_true(pid > 0);
    assert_int_equal(tercio__process_reap(handle, pid, &how), TERCIO_EAGAIN);
    assert_int_equal(tercio__process_signal(handle, pid, 0), 0);
    assert_int_equal(tercio__process_signal(handle, pid, SIGTERM), 0);
    int again = dup(handle);
    assert_int_equal(end_of(handle, pid).signal, SIGTERM);
    assert_int_equal(tercio__process_signal(again, pid, SIGTERM), TERCIO_EINVAL);
    close(again);

    pid = spawn(ARGV("sleep", "1000"), NULL, 0, &handle);
    assert_int_equal(getpgid(pid), getpgrp());
    tercio__process_kill_group(pid); /* leads none: nothing happens, above all not to us */
    assert_int_equal(tercio__process_reap(handle, pid, &how), TERCIO_EAGAIN);
    assert_int_equal(tercio__process_signal(handle, pid, SIGKILL), 0);
    assert_int_equal(end_of(handle, pid).signal, SIGKILL);
}

static void test_kill_group_takes_all(void **state)
{
    (void)state;
    int pipes[2], handle, more;
    char byte;
    assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
    char command[64];
    snprintf(command, sizeof command, "sleep 1000 & echo >&%d; wait", pipes[1]);
    int pid = spawn(ARGV("setsid", "sh", "-c", command), &pipes[1], 1, &handle);
    assert_true(pid > 0);
    close(pipes[1]);
    assert_int_equal(read(pipes[0], &byte, 1), 1);
    tercio__process_kill_group(pid);
    assert_int_equal(end_of(handle, pid).signal, SIGKILL);
    assert_int_equal(tercio__bells_wait(&pipes[0], 1, tercio__deadline(patience), NULL), 1);
    more = (int)read(pipes[0], &byte, 1); /* the end: the grandchild held the other side, too */
    assert_int_equal(more, 0);
    close(pipes[0]);
}

/* A worker whose child and grandchild hold ends[1], and one that leaves the group, which holds left[1]; it says so, and is
 * killed. */
static pid_t found_family(uint64_t family, int ends[2], int left[2])
{
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    assert_int_equal(pipe2(left, O_CLOEXEC), 0);
    pid_t pid = fork();
    if (pid == 0) {
        if (!tercio__family_join(family))
            _exit(2);
        if (fork() == 0) {
            close(left[1]);
            if (fork() == 0 && write(ends[1], "a", 1) == 1)
                pause();
            pause();
        }
        if (fork() == 0) {
            close(ends[1]);
            pid_t self = setsid();
            if (write(left[1], &self, sizeof self) == sizeof self)
                pause();
            _exit(0);
        }
        close(left[1]);
        pause();
    }
    close(ends[1]);
    close(left[1]);
    return pid;
}

static void test_family(void **state)
{
    (void)state;
    int ends[2], left[2], others[2], more[2];
    uint64_t one = tercio__family_new(), two = tercio__family_new();
    assert_true(one && two && one != two);
    pid_t pid = found_family(one, ends, left), other = found_family(two, others, more);
    char byte;
    pid_t gone[2];
    assert_int_equal(read(ends[0], &byte, 1), 1);
    assert_int_equal(read(others[0], &byte, 1), 1);
    assert_int_equal(read(left[0], &gone[0], sizeof gone[0]), sizeof gone[0]);
    assert_int_equal(read(more[0], &gone[1], sizeof gone[1]), sizeof gone[1]);
    kill(pid, SIGKILL);
    siginfo_t info;
    assert_int_equal(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0);
    tercio__family_kill(one, pid);
    assert_int_equal(WTERMSIG(wait_status(pid)), SIGKILL);
    assert_int_equal(hear(ends[0]), 0); /* the end: none is left that could write */
    struct pollfd still[] = {{.fd = left[0], .events = POLLIN}, {.fd = others[0], .events = POLLIN}};
    assert_int_equal(poll(still, 2, 0), 0); /* who has left is nobody's, and the neighbour has lost none */

    kill(other, SIGKILL);
    assert_int_equal(WTERMSIG(wait_status(other)), SIGKILL); /* collected: its group is ours all the same */
    tercio__family_kill(two, other);
    assert_int_equal(hear(others[0]), 0);
    kill(gone[0], SIGKILL);
    kill(gone[1], SIGKILL);
    const int all[] = {ends[0], left[0], others[0], more[0]};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        close(all[i]);
}

static void test_collected_by_another(void **state)
{
    (void)state;
    struct sigaction ignore = {.sa_handler = SIG_IGN}, before;
    sigaction(SIGCHLD, &ignore, &before);
    tercio__exit how = outcome(ARGV("sh", "-c", "exit 7"), NULL, 0);
    assert_true(how.code == 7 || how.code == -1); /* known or unknown, never another */
    assert_int_equal(how.signal, 0);
    assert_int_equal(how.peak_rss, 0);
    bool remembered = how.code == 7;
    how = outcome(ARGV("sh", "-c", "kill -KILL $$"), NULL, 0);
    assert_int_equal(how.code, -1);
    assert_int_equal(how.signal, remembered ? SIGKILL : 0);
    int handle, pid = spawn(ARGV("sleep", "1000"), NULL, 0, &handle);
    assert_int_equal(tercio__process_reap(handle, pid, &how), TERCIO_EAGAIN);
    tercio__process_signal(handle, pid, SIGKILL);
    (void)end_of(handle, pid);
    int none;
    assert_int_equal(spawn(ARGV("/nowhere/at/all"), NULL, 0, &none), TERCIO_ESYSTEM);
    sigaction(SIGCHLD, &before, NULL);

    pid_t child = fork();
    if (child == 0)
        _exit(5);
    handle = tercio__process_handle(child);
    assert_true(handle >= 0 && is_cloexec(handle));
    (void)wait_status(child);
    how = end_of(handle, child);
    assert_int_equal(how.code, remembered ? 5 : -1);
    assert_int_equal(tercio__process_handle(INT32_MAX), TERCIO_ESYSTEM);
    handle = tercio__process_handle(getppid()); /* another's child, and alive */
    assert_int_equal(tercio__process_reap(handle, getppid(), &how), TERCIO_EAGAIN);
    close(handle);
}

static void test_own_executable(void **state)
{
    (void)state;
    char path[4096];
    assert_int_equal(tercio__own_executable(path, 4), TERCIO_EINVAL);
    assert_int_equal(tercio__own_executable(path, sizeof path), 0);
    assert_int_equal(outcome(ARGV(path, "--exit-with-42"), NULL, 0).code, 42);
}

/* ---- The parent's death ---------------------------------------------------------------------------------------- */

struct scene {
    int talk[2];  /* [0]: the test's, [1]: the grandchild's */
    int ready[2]; /* the grandchild's word to the thread that made it */
    int parent;
};

/* Ends with its parent; says so when it is ready, and answers each byte with another until then. */
static void grandchild(struct scene *scene, bool busy)
{
    alarm(60);
    close(scene->talk[0]);
    int error = tercio__die_with_parent(scene->parent, false, -1);
    char byte = (char)('0' - error);
    if (write(scene->ready[1], &byte, 1) != 1 || write(scene->talk[1], &byte, 1) != 1)
        _exit(2);
    for (volatile uint64_t spin = 0; busy; spin++)
        ;
    while (read(scene->talk[1], &byte, 1) == 1)
        if (write(scene->talk[1], &byte, 1) != 1)
            _exit(2);
    pause();
}

static void *fork_in_thread(void *argument)
{
    struct scene *scene = argument;
    char byte;
    if (fork() == 0)
        grandchild(scene, false);
    (void)!read(scene->ready[0], &byte, 1); /* not before it listens to our end */
    return NULL;
}

/* The child: has a grandchild, and waits to be killed. */
static void middle(struct scene *scene, bool busy, bool in_thread)
{
    alarm(60);
    scene->parent = getpid();
    if (in_thread) {
        size_t threads = count_listed_threads();
        pthread_t thread;
        pthread_create(&thread, NULL, fork_in_thread, scene);
        pthread_join(thread, NULL);
        while (count_listed_threads() > threads) /* joined is a little before gone, and gone is when it signals */
            tercio__yield();
        char byte = '!';
        if (write(scene->talk[1], &byte, 1) != 1)
            _exit(2);
    } else if (fork() == 0) {
        grandchild(scene, busy);
    }
    for (;;)
        pause();
}

static char hear(int fd)
{
    char byte = 0;
    assert_int_equal(tercio__bells_wait(&fd, 1, tercio__deadline(patience), NULL), 1);
    return read(fd, &byte, 1) == 1 ? byte : 0;
}

static void parent_dies(bool busy, bool in_thread)
{
#ifdef __SANITIZE_THREAD__
    skip(); /* it holds signals back until the program's next call, and here there is none */
#endif
    struct scene scene;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, scene.talk), 0);
    assert_int_equal(pipe2(scene.ready, O_CLOEXEC), 0);
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0)
        middle(&scene, busy, in_thread);
    close(scene.talk[1]);
    char first = hear(scene.talk[0]);
    if (in_thread) {
        char second = hear(scene.talk[0]);
        assert_true((first == '0' && second == '!') || (first == '!' && second == '0'));
        /* The thread that forked it is gone; its process isn't. */
        assert_int_equal(write(scene.talk[0], "x", 1), 1);
        assert_int_equal(hear(scene.talk[0]), 'x');
    } else {
        assert_int_equal(first, '0');
    }
    kill(pid, SIGKILL);
    assert_int_equal(WTERMSIG(wait_status(pid)), SIGKILL);
    assert_int_equal(hear(scene.talk[0]), 0); /* the end: it is gone */
    close(scene.talk[0]);
    close(scene.ready[0]);
    close(scene.ready[1]);
}

static void test_dies_with_parent(void **state)
{
    (void)state;
    parent_dies(false, false);
    parent_dies(true, false);
}

static void test_outlives_the_thread(void **state)
{
    (void)state;
    parent_dies(false, true);
}

static void test_parent_died_before(void **state)
{
    (void)state;
    int ends[2], gate[2];
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    assert_int_equal(pipe2(gate, O_CLOEXEC), 0);
    pid_t pid = fork();
    if (pid == 0) {
        pid_t parent = getpid();
        if (fork() == 0) {
            char byte;
            close(gate[1]);
            if (read(gate[0], &byte, 1) != 0) /* the end of this: the parent was collected */
                _exit(2);
            (void)tercio__die_with_parent(parent, false, -1);
            (void)!write(ends[1], "alive", 5);
            _exit(0);
        }
        _exit(0);
    }
    close(ends[1]);
    (void)wait_status(pid);
    assert_false(tercio__parent_gone(0));
    assert_false(tercio__parent_gone(getppid()));
    assert_true(tercio__parent_gone(getpid()));
    close(gate[0]);
    close(gate[1]);
    assert_int_equal(hear(ends[0]), 0);
    close(ends[0]);
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "--exit-with-42") == 0)
        return 42;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_spawn_and_exit_codes),    cmocka_unit_test(test_spawn_errors_are_the_callers),
        cmocka_unit_test(test_spawn_keeps_descriptors), cmocka_unit_test(test_spawn_signals),
        cmocka_unit_test(test_signals_of_a_worker),     cmocka_unit_test(test_signals_by_handle),
        cmocka_unit_test(test_kill_group_takes_all),    cmocka_unit_test(test_family),
        cmocka_unit_test(test_collected_by_another),    cmocka_unit_test(test_own_executable),
        cmocka_unit_test(test_dies_with_parent),        cmocka_unit_test(test_outlives_the_thread),
        cmocka_unit_test(test_parent_died_before),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
