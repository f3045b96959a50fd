/* SPDX-License-Identifier: MIT
 *
 * Returns shared memory to the system. Pages that were used lately stay committed while large payloads move, and are
 * decommitted after a second in which none moved: the parent decommits its own, and asks its workers to decommit
 * theirs. The memory of dead workers is discarded as soon as no result is in it.
 */
#include "pool/purge.h"

#include <stdatomic.h>

#include "memory/arena.h"
#include "memory/views.h"
#include "plat/plat.h"
#include "pool/wake.h"
#include "start/start.h"
#include "state/pool.h"
#include "tercio.h"

enum { PURGE_AFTER_NS = 1000000000 };

void tercio__note_moved(tercio_pool *pool, uint64_t bytes)
{
    tercio__assert_locked(pool);
    pool->moved_bytes += bytes;
    if (pool->moved_bytes <= TERCIO__KEEP_COMMITTED || pool->trim_at || !pool->starter->processes)
        return;
    pool->moved_bytes = 0;
    pool->trim_at = tercio__now() + PURGE_AFTER_NS;
    tercio__bell_ring(pool->supervisor_bell); /* it sets its timer */
}

uint64_t tercio__purge(tercio_pool *pool)
{
    tercio__assert_locked(pool);
    if (pool->listens && pool->trim_at == 0 && tercio__file_returned(pool->file) > TERCIO__KEEP_COMMITTED) {
        pool->listens = false;
        pool->trim_at = tercio__now() + PURGE_AFTER_NS;
    }
    if (pool->trim_at == 0)
        return 0;
    uint64_t now = tercio__now();
    if (now < pool->trim_at)
        return pool->trim_at;
    if (pool->moved_bytes) {
        pool->moved_bytes = 0;
        return pool->trim_at = now + PURGE_AFTER_NS;
    }
    pool->trim_at = 0;
    pool->listens = true;
    tercio__file_listen(pool->file, pool->supervisor_bell);
    tercio__arena_trim(pool->arena);
    for (unsigned i = 0; i < pool->n_workers; i++) {
        tercio__worker *worker = &pool->workers[i];
        if (worker->state != TERCIO_STATE_START)
            continue;
        atomic_fetch_add_explicit(&worker->sender.map.words->trim, 1, memory_order_relaxed);
        tercio__wake(worker);
    }
    return 0;
}

void tercio__discard_dead(tercio_pool *pool)
{
    tercio__assert_locked(pool);
    /* Results that nobody has taken over yet may lie there. */
    if (pool->n_dead_ranges == 0 || atomic_load_explicit(&pool->blocks_out, memory_order_acquire) != 0)
        return;
    if (tercio__file_discard(pool->file, pool->dead_ranges, pool->n_dead_ranges, NULL, 0) == 0)
        pool->n_dead_ranges = 0;
}
