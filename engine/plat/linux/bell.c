/* SPDX-License-Identifier: MIT
 *
 * Bells that a descriptor stands for.
 */
#include <errno.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "../plat.h"
#include "tercio.h"

enum { most_bells = 64 };

int tercio__bell_create(void)
{
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return fd < 0 ? TERCIO_ESYSTEM : fd;
}

bool tercio__bell_ring(int fd)
{
    int saved_errno = errno;
    uint64_t one = 1;
    ssize_t n;
    while ((n = write(fd, &one, sizeof one)) < 0 && errno == EINTR)
        ;
    /* EAGAIN means that the counter is full: it is readable, which is all that a ring says. */
    bool rung = n == (ssize_t)sizeof one || (n < 0 && errno == EAGAIN);
    errno = saved_errno;
    return rung;
}

void tercio__bell_clear(int fd)
{
    int saved_errno = errno;
    uint64_t count;
    while (read(fd, &count, sizeof count) < 0 && errno == EINTR)
        ;
    errno = saved_errno;
}

int tercio__bells_wait(const int *fds, size_t n, uint64_t deadline, const sigset_t *sigmask)
{
    struct pollfd polled[most_bells];
    if (n > most_bells)
        return TERCIO_EINVAL;
    for (size_t i = 0; i < n; i++)
        polled[i] = (struct pollfd){.fd = fds[i], .events = POLLIN};

    struct timespec left, *timeout = NULL;
    if (deadline) {
        uint64_t now = tercio__now();
        uint64_t ns = deadline > now ? deadline - now : 0;
        left.tv_sec = (time_t)(ns / 1000000000u);
        left.tv_nsec = (long)(ns % 1000000000u);
        timeout = &left;
    }
    int ready = ppoll(polled, (nfds_t)n, timeout, sigmask);
    if (ready < 0)
        return errno == EINTR ? TERCIO_EINTERRUPTED : TERCIO_ESYSTEM;
    /* A descriptor that somebody closed under us must not look like a bell that never stops ringing. */
    for (size_t i = 0; i < n; i++)
        if (polled[i].revents & POLLNVAL) {
            errno = EBADF;
            return TERCIO_ESYSTEM;
        }
    return ready > 0;
}
