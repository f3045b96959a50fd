/* SPDX-License-Identifier: MIT
 *
 * A caller looks for answers for a short while before it sleeps, without the lock.
 */
#include "pool/spin.h"

#include <pthread.h>
#include <stdatomic.h>

#include "plat/plat.h"
#include "pool/announce.h"
#include "state/pool.h"
#include "tercio.h"

enum { LONGEST_SPIN = 20000, SKIPS = 16 }; /* ns; looks that are left out after spinning was in vain */

/* Looks for news for a while: waking costs a hundred times what a short look does. How long follows how often it
 * was worth it; yielding lets the worker that we wait for have this CPU. Not under the lock. */
bool tercio__spin(tercio_pool *pool, uint64_t deadline)
{
    uint64_t budget = pool->spin_ns;
    if (budget == 0) {
        if (++pool->spin_skips < SKIPS)
            return false;
        pool->spin_skips = 0;
        budget = LONGEST_SPIN / 4;
    }
    uint64_t end = tercio__now() + budget;
    if (deadline && deadline < end)
        end = deadline;
    do {
        for (int i = 0; i < 16; i++)
            if (tercio__has_news(pool)) {
                pool->spin_ns = LONGEST_SPIN;
                return true;
            }
        tercio__yield();
    } while (tercio__now() < end && !atomic_load_explicit(&pool->spin_off, memory_order_relaxed));
    pool->spin_ns = pool->spin_ns > LONGEST_SPIN / 8 ? pool->spin_ns / 2 : 0;
    return false;
}

void tercio__stop_spinners(tercio_pool *pool)
{
    tercio__assert_locked(pool);
    atomic_store_explicit(&pool->spin_off, true, memory_order_relaxed);
    while (pool->n_spinning)
        tercio__wait_unlocked(pool, &pool->supervisor_moved);
    atomic_store_explicit(&pool->spin_off, false, memory_order_relaxed);
}
