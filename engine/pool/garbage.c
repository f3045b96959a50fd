/* SPDX-License-Identifier: MIT
 *
 * Messages and answers that nobody will read. Under threading the host made them of objects, which it has to drop; it is
 * called without the lock, so they are queued here until the lock is free.
 */
#include "pool/garbage.h"

#include "pool/inbox.h"
#include "start/start.h"
#include "state/pool.h"
#include "tercio.h"

void tercio__garbage(tercio_pool *pool, const void *head, size_t size, uint32_t n_items, uint32_t skip, bool is_answer)
{
    if (pool->starter->processes || pool->host->drop == NULL)
        return;
    tercio__entry entry = {.index = n_items, .cookie = skip, .kind = is_answer, .out_size = size};
    (void)tercio__inbox_add(&pool->garbage, &entry, NULL, head, NULL);
}

static void drop_one(void *user, tercio_result *result)
{
    tercio_pool *pool = user;
    pool->host->drop(pool->host_user, result->out, (uint32_t)result->index, (uint32_t)result->cookie, result->kind);
}

void tercio__drop_garbage(tercio_pool *pool)
{
    tercio__inbox garbage;
    tercio__lock(pool);
    garbage = pool->garbage;
    pool->garbage = (tercio__inbox){0};
    tercio__unlock(pool);
    if (!tercio__inbox_empty(&garbage))
        tercio__inbox_clear(&garbage, drop_one, pool);
}
