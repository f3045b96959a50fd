/* SPDX-License-Identifier: MIT
 *
 * tercio_open on systems that aren't this one: where a wait fails, and where pages are larger. The calls of the C
 * library that say so are this program's own, here; its workers are forked, so they are theirs, too.
 */
#include "face_tasks.h"

#include <dlfcn.h>
#include <poll.h>
#include <sys/mman.h>

static bool no_wait;
static _Atomic unsigned n_refused; /* waits without a limit */
static long page_size;             /* 0: as it is */

int ppoll(struct pollfd *fds, nfds_t n, const struct timespec *timeout, const sigset_t *mask)
{
    struct timespec left = {0};
    if (timeout)
        left = *timeout; /* the system call counts it down */
    if (no_wait) {
        n_refused += timeout == NULL;
        errno = ENOMEM;
        return -1;
    }
    return (int)syscall(SYS_ppoll, fds, n, timeout ? &left : NULL, mask, (size_t)8);
}

long sysconf(int name)
{
    static long (*next)(int);
    if (name == _SC_PAGESIZE && page_size)
        return page_size;
    if (next == NULL)
        *(void **)&next = dlsym(RTLD_NEXT, "sysconf");
    return next(name);
}

void *mmap(void *address, size_t size, int protection, int flags, int fd, off_t offset)
{
    if (page_size && offset % page_size) {
        errno = EINVAL;
        return MAP_FAILED;
    }
    return (void *)syscall(SYS_mmap, address, size, protection, flags, fd, offset); /* NOLINT */
}

/* The first wait for workers that have yet to say that they live. */
static void a_wait_that_fails(void **state)
{
    (void)state;
    tercio_options options = face_options(TERCIO_FORK, 2);
    tercio_pool *pool = (tercio_pool *)(uintptr_t)1;
    no_wait = true;
    int error = tercio_open(&pool, &options), number = errno;
    no_wait = false;
    if (error == 0) { /* both said so before anybody had to wait */
        tercio_close(pool);
        return;
    }
    assert_int_equal(error, TERCIO_ESYSTEM);
    assert_int_equal(number, ENOMEM);
    assert_int_equal(n_refused, 1); /* nor does it turn in circles until they have */
    assert_null(pool);
}

static void pages_of_64_KiB(void **state)
{
    (void)state;
    pid_t program = fork(); /* what the page size is, is asked once */
    int status;
    if (program == 0) {
        tercio_options options = face_options(TERCIO_FORK, 3);
        tercio_pool *pool;
        int64_t in[100], out[100];
        static unsigned char large[3][LARGE_IN];
        static unsigned char answers[3][LARGE_OUT];
        page_size = 64 << 10;
        if (tercio_open(&pool, &options))
            _exit(1);
        for (int i = 0; i < 100; i++)
            in[i] = i;
        if (tercio_map(pool, DOUBLE, in, 8, 100, out, NULL, NULL) || out[99] != 198)
            _exit(2);
        if (tercio_map(pool, LARGE, large, LARGE_IN, 3, answers, NULL, NULL) || answers[2][LARGE_OUT - 1] != 1)
            _exit(3);
        tercio_close(pool);
        _exit(0);
    }
    assert_int_equal(waitpid(program, &status, 0), program);
    assert_int_equal(status, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(pages_of_64_KiB), cmocka_unit_test(a_wait_that_fails)};
    alarm(110);
    return cmocka_run_group_tests_name("open", tests, NULL, NULL);
}
