/* SPDX-License-Identifier: MIT
 *
 * Shared memory that was used lately: it is kept while large things move, and given back after a second in which none
 * did, by the parent and, when they are asked to, by its workers.
 */
#include "start/start.h"

enum { LINGER_NS = 1000000000 };

void tercio__note_moved(tercio_pool *pool, uint64_t bytes)
{
    pool->moved_bytes += bytes;
    if (pool->moved_bytes <= TERCIO__KEEP_WARM || pool->trim_at || !pool->starter->processes)
        return;
    pool->moved_bytes = 0;
    pool->trim_at = tercio__now() + LINGER_NS;
    tercio__bell_ring(pool->keeper_bell); /* it sets its timer */
}

uint64_t tercio__linger(tercio_pool *pool)
{
    if (pool->listens && pool->trim_at == 0 && tercio__file_returned(pool->file) > TERCIO__KEEP_WARM) {
        pool->listens = false;
        pool->trim_at = tercio__now() + LINGER_NS;
    }
    if (pool->trim_at == 0)
        return 0;
    uint64_t now = tercio__now();
    if (now < pool->trim_at)
        return pool->trim_at;
    if (pool->moved_bytes) {
        pool->moved_bytes = 0;
        return pool->trim_at = now + LINGER_NS;
    }
    pool->trim_at = 0;
    pool->listens = true;
    tercio__file_listen(pool->file, pool->keeper_bell);
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
