/* SPDX-License-Identifier: MIT
 *
 * The supervisor's set of descriptors. Level-triggered: a token comes again until its cause is dealt with, so a
 * supervisor that was interrupted between looking and acting loses nothing.
 */
#include <errno.h>
#include <limits.h>
#include <sys/epoll.h>

#include "../plat.h"
#include "tercio.h"

enum { most_events = 64 };

int tercio__set_create(void)
{
    int set = epoll_create1(EPOLL_CLOEXEC);
    return set < 0 ? TERCIO_ESYSTEM : set;
}

int tercio__set_add(int set, int fd, uint64_t token)
{
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = token};
    return epoll_ctl(set, EPOLL_CTL_ADD, fd, &event) ? TERCIO_ESYSTEM : 0;
}

void tercio__set_remove(int set, int fd)
{
    int saved_errno = errno;
    struct epoll_event unused = {0};
    (void)epoll_ctl(set, EPOLL_CTL_DEL, fd, &unused);
    errno = saved_errno;
}

int tercio__set_wait(int set, uint64_t *tokens, int n, uint64_t deadline)
{
    struct epoll_event events[most_events];
    if (n <= 0)
        return TERCIO_EINVAL;
    for (;;) {
        int timeout = -1;
        bool last = true;
        if (deadline) {
            uint64_t now = tercio__now();
            /* Rounded up: waking a little early would make the caller turn in circles for the rest. */
            uint64_t ms = deadline > now ? (deadline - now + 999999u) / 1000000u : 0;
            last = ms <= INT_MAX;
            timeout = last ? (int)ms : INT_MAX;
        }
        int ready = epoll_wait(set, events, n < most_events ? n : most_events, timeout);
        if (ready > 0) {
            for (int i = 0; i < ready; i++)
                tokens[i] = events[i].data.u64;
            return ready;
        }
        if (ready < 0 && errno != EINTR)
            return TERCIO_ESYSTEM;
        if (ready == 0 && last)
            return 0;
    }
}
