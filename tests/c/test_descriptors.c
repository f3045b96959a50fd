/* SPDX-License-Identifier: MIT
 *
 * What pools have open for themselves: a worker's fork closes it, but for what it needs; a number that was given back, or
 * is another's by now, is left alone, also in children that the application forked.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/forks.h"
#include "memory/arena.h"
#include "memory/views.h"

enum { MANY = 200 };

static bool is_open(int fd)
{
    return fcntl(fd, F_GETFD) >= 0;
}

static int new_descriptor(void)
{
    int fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    return fd;
}

/* Forked as a starter forks its workers. */
static void in_worker(bool (*check)(const int *fds), const int *fds, const int *keep, size_t n_keep)
{
    int status = 0;
    tercio__owned_fork(true);
    pid_t pid = fork();
    if (pid == 0) {
        tercio__owned_drop(keep, n_keep);
        _exit(check(fds) ? 0 : 1);
    }
    tercio__owned_fork(false);
    assert_true(pid > 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

static bool just_the_kept_ones(const int *fds)
{
    for (int i = 0; i < MANY; i++)
        if (is_open(fds[i]) != (i == 3 || i == 77))
            return false;
    return true;
}

static void a_worker_has_what_it_needs(void **state)
{
    (void)state;
    int fds[MANY], foreign = new_descriptor();
    for (int i = 0; i < MANY; i++)
        fds[i] = tercio__owned(new_descriptor());
    const int keep[] = {fds[3], -1, fds[77]};
    in_worker(just_the_kept_ones, fds, keep, 3);
    for (int i = 0; i < MANY; i++)
        assert_true(is_open(fds[i]));
    for (int i = 0; i < MANY; i++)
        tercio__owned_close(fds[i], tercio__fork_generation());
    for (int i = 0; i < MANY; i++)
        assert_false(is_open(fds[i]));
    assert_true(is_open(foreign));
    close(foreign);
}

static bool still_open(const int *fds)
{
    return is_open(fds[0]);
}

static void a_number_that_was_given_back(void **state)
{
    (void)state;
    int fd = tercio__owned(new_descriptor());
    tercio__owned_close(fd, tercio__fork_generation());
    assert_int_equal(new_descriptor(), fd); /* the application's now */
    in_worker(still_open, &fd, NULL, 0);
    close(fd);
}

static uint32_t before_the_fork;

/* What the worker opens gets the number of what it closed: a copy of the old owner must not close it. */
static bool others_have_the_number(const int *fds)
{
    if (is_open(fds[0]) || new_descriptor() != fds[0])
        return false;
    tercio__owned_close(fds[0], before_the_fork);
    if (!is_open(fds[0]))
        return false;
    tercio__owned_close(tercio__owned(fds[0]), tercio__fork_generation());
    return !is_open(fds[0]);
}

static void copies_close_nothing(void **state)
{
    (void)state;
    tercio__fork_watch();
    before_the_fork = tercio__fork_generation();
    int fd = tercio__owned(new_descriptor());
    in_worker(others_have_the_number, &fd, NULL, 0);
    tercio__owned_close(fd, tercio__fork_generation());
}

/* A child of the application's, which may have closed everything, opens a pool of its own. */
static void a_child_of_the_application(void **state)
{
    (void)state;
    int status = 0, fd = tercio__owned(new_descriptor());
    pid_t pid = fork();
    if (pid == 0) {
        int own = tercio__owned(new_descriptor());
        bool kept = own >= 0 && is_open(fd);
        int grandchild_status = 1;
        tercio__owned_fork(true);
        pid_t grandchild = fork();
        if (grandchild == 0) {
            tercio__owned_drop(NULL, 0);
            _exit(is_open(fd) && !is_open(own) ? 0 : 1);
        }
        tercio__owned_fork(false);
        (void)waitpid(grandchild, &grandchild_status, 0);
        _exit(kept && grandchild_status == 0 ? 0 : 1);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    tercio__owned_close(fd, tercio__fork_generation());
}

static void errors_and_numbers_beyond_the_table(void **state)
{
    (void)state;
    struct rlimit before, most;
    assert_int_equal(tercio__owned(-7), -7);
    tercio__owned_close(-7, tercio__fork_generation());
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    most = (struct rlimit){.rlim_cur = before.rlim_max, .rlim_max = before.rlim_max};
    int far = (1 << 20) + 5;
    if (before.rlim_max <= (rlim_t)far || setrlimit(RLIMIT_NOFILE, &most))
        far = before.rlim_max > 5000 ? 4321 : 99;
    int fd = new_descriptor();
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &most), 0);
    assert_int_equal(dup2(fd, far), far);
    assert_int_equal(tercio__owned(far), far);
    tercio__owned_close(far, tercio__fork_generation());
    assert_false(is_open(far));
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    close(fd);
}

static _Atomic bool stops;

static void *come_and_go(void *data)
{
    (void)data;
    while (!atomic_load(&stops))
        tercio__owned_close(tercio__owned(open("/dev/null", O_RDWR | O_CLOEXEC)), tercio__fork_generation());
    return NULL;
}

/* The child has one thread, whatever another one was in the middle of; it can open pools all the same. */
static void forks_beside_threads(void **state)
{
    (void)state;
    pthread_t threads[2];
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, come_and_go, NULL), 0);
    for (int i = 0; i < 200; i++) {
        bool application = i % 2;
        int status = 1;
        if (!application)
            tercio__owned_fork(true);
        pid_t pid = fork();
        if (pid == 0) {
            alarm(20);
            if (!application)
                tercio__owned_drop(NULL, 0);
            int fd = tercio__owned(open("/dev/null", O_RDWR | O_CLOEXEC));
            tercio__owned_close(fd, tercio__fork_generation());
            _exit(fd >= 0 && !is_open(fd) ? 0 : 1);
        }
        if (!application)
            tercio__owned_fork(false);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(status, 0);
    }
    atomic_store(&stops, true);
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
}

int main(void)
{
    tercio__fork_watch();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_worker_has_what_it_needs),
        cmocka_unit_test(a_number_that_was_given_back),
        cmocka_unit_test(copies_close_nothing),
        cmocka_unit_test(a_child_of_the_application),
        cmocka_unit_test(errors_and_numbers_beyond_the_table),
        cmocka_unit_test(forks_beside_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
