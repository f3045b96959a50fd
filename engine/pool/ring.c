/* SPDX-License-Identifier: MIT
 *
 * Rings the callers that are asleep: those of one run, all of the pool, or those that wait for room.
 */
#include "pool/ring.h"

#include "plat/plat.h"
#include "state/pool.h"
#include "tercio.h"

void tercio__run_ring(tercio_run *run)
{
    tercio__assert_locked(run->pool);
    if (run->waits)
        tercio__bell_ring(run->waits_on);
    else if (run->bell_public)
        tercio__bell_ring(run->bell);
}

void tercio__ring_all(tercio_pool *pool)
{
    tercio__assert_locked(pool);
    for (tercio_run *run = pool->runs; run; run = run->next)
        tercio__run_ring(run);
    for (tercio__pool_waiter *waiter = pool->pool_waiters; waiter; waiter = waiter->next)
        tercio__bell_ring(waiter->waits_on);
}

void tercio__ring_for_room(tercio_pool *pool)
{
    tercio__assert_locked(pool);
    if (pool->pool_waiters == NULL || !tercio__may_hold(pool))
        return;
    for (tercio__pool_waiter *waiter = pool->pool_waiters; waiter; waiter = waiter->next)
        if (waiter->wants_room)
            tercio__bell_ring(waiter->waits_on);
}
