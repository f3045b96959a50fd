/* SPDX-License-Identifier: MIT
 *
 * Sleeping on a word. The futexes are not of the private kind: the sleeper and the waker are two processes.
 */
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "../plat.h"

#ifndef SYS_futex
#define SYS_futex SYS_futex_time64
#endif

void tercio__word_wait(_Atomic uint32_t *word, uint32_t seen, uint64_t deadline)
{
    int saved_errno = errno;
    struct timespec until = {.tv_sec = (time_t)(deadline / 1000000000u), .tv_nsec = (long)(deadline % 1000000000u)};
    /* The bitset call, because its time is a point on the monotonic clock and so survives being called again. */
    (void)syscall(SYS_futex, word, FUTEX_WAIT_BITSET, seen, deadline ? &until : NULL, NULL, FUTEX_BITSET_MATCH_ANY);
    errno = saved_errno;
}

void tercio__word_wake(_Atomic uint32_t *word)
{
    int saved_errno = errno;
    (void)syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
    errno = saved_errno;
}
