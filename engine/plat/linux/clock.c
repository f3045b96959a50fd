/* SPDX-License-Identifier: MIT
 *
 * Time. Everything is on the monotonic clock, which futexes and timers of the kernel understand as it is.
 */
#include <sched.h>
#include <time.h>

#include "../plat.h"

uint64_t tercio__now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

uint64_t tercio__deadline(double seconds)
{
    if (!(seconds >= 0 && seconds < 1e9)) /* written so that a NaN waits for ever, too */
        return 0;
    return tercio__now() + (uint64_t)(seconds * 1e9);
}

uint64_t tercio__nanoseconds(double seconds)
{
    static const double most = 1e9;
    return seconds > 0 ? (uint64_t)((seconds < most ? seconds : most) * 1e9) : 0;
}

void tercio__yield(void)
{
    sched_yield();
}
