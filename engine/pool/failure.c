/* SPDX-License-Identifier: MIT
 *
 * Failures of the pool itself: what its callers get from then on, and the report that tercio_failure hands out.
 */
#include "pool/failure.h"

#include <string.h>

#include "base/abi.h"
#include "pool/inbox.h"
#include "pool/message.h"
#include "pool/pending.h"
#include "pool/ring.h"
#include "state/pool.h"
#include "tercio.h"

void tercio__runs_lose(tercio_pool *pool, int error)
{
    tercio__assert_locked(pool);
    for (tercio_run *run = pool->runs; run; run = run->next)
        if (run->error == 0 && (run->n_chunks || !run->ended))
            run->error = error;
}

void tercio__pool_fail(tercio_pool *pool, int error, const tercio__entry *entry, const tercio_block *blocks,
                       const void *out, const char *message)
{
    tercio__assert_locked(pool);
    if (pool->failure)
        return;
    tercio__entry failure = {0};
    if (entry)
        failure = *entry;
    if (message == NULL)
        message = tercio_error_text(error);
    failure.message_size = (uint32_t)strlen(message) + 1;
    if (failure.status == 0)
        failure.status = error;
    pool->failure = error;
    tercio__runs_lose(pool, error);
    (void)tercio__inbox_add(&pool->failures, &failure, blocks, out, message);
    tercio__drop_pending(pool, NULL);
    tercio__take_back(pool, NULL);
    tercio__ring_all(pool);
}

int tercio_failure(tercio_pool *pool, tercio_result *result)
{
    if (pool == NULL || tercio__result_check(result))
        return TERCIO_EINVAL;
    if (!tercio__is_ours(pool))
        return 0;
    tercio__lock(pool);
    if (!pool->failure_taken && tercio__inbox_take(&pool->failures, &pool->failure_result)) {
        pool->failure_taken = true;
        (void)tercio__make_whole(pool, &pool->failure_result, &pool->failure_view);
        if (pool->explain)
            pool->explain(&pool->failure_result);
    }
    if (pool->failure_taken)
        tercio__result_write(result, &pool->failure_result);
    bool taken = pool->failure_taken;
    tercio__unlock(pool);
    return taken;
}
