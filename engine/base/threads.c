/* SPDX-License-Identifier: MIT
 *
 * The threads that the engine starts for itself in this process: supervisors, and workers under threading. They hold no
 * lock that a forked child would miss, so a program that forks doesn't count them among its own. A thread of a pool can't
 * close that pool.
 */
#include "base/threads.h"

#include <stdatomic.h>

#include "base/forks.h"
#include "tercio.h"

int tercio__count_own_thread(int change)
{
    static _Atomic int n;
    return atomic_fetch_add(&n, change) + change;
}

static _Thread_local struct {
    const tercio_pool *pool; /* NULL: not a thread of ours */
    bool supervises;
    uint32_t fork_generation; /* a worker that it forks is none of them */
} own_thread;

void tercio__own_thread_of(const tercio_pool *pool, bool supervises)
{
    own_thread.pool = pool;
    own_thread.supervises = supervises;
    own_thread.fork_generation = tercio__fork_generation();
}

bool tercio_may_close(const tercio_pool *pool)
{
    if (own_thread.pool == NULL || own_thread.fork_generation != tercio__fork_generation())
        return true;
    return !own_thread.supervises && own_thread.pool != pool;
}
