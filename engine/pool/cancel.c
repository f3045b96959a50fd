/* SPDX-License-Identifier: MIT
 *
 * Takes back what was handed in: one item (tercio_cancel), a run or all of the pool (tercio_abort), or a run that is closed.
 */
#include "pool/cancel.h"

#include <stdatomic.h>

#include "channel/channel.h"
#include "channel/layout.h"
#include "pool/collect.h"
#include "pool/garbage.h"
#include "pool/interrupt.h"
#include "pool/message.h"
#include "pool/notify.h"
#include "pool/pending.h"
#include "pool/ring.h"
#include "pool/wake.h"
#include "state/pool.h"
#include "tercio.h"

/* Lets go of what is under way: what is queued is dropped, what runs ends with its item and nobody hears of it. */
void tercio__let_go(tercio_run *run)
{
    tercio__assert_locked(run->pool);
    tercio_pool *pool = run->pool;
    tercio__drop_pending(pool, run);
    tercio__take_back(pool, run);
    for (unsigned i = 0; i < pool->n_workers; i++) {
        tercio__worker *worker = &pool->workers[i];
        for (uint64_t s = worker->sender.reclaimed; s < worker->sender.tail; s++) {
            tercio__chunk *chunk = &worker->inflight[s % TERCIO__SLOTS];
            if (chunk->run != run)
                continue;
            chunk->run = NULL;
            chunk->abort = TERCIO__ABORT_DROP;
            if (s == tercio__sender_passed(&worker->sender)) /* else the word may be about the one behind it */
                atomic_store_explicit(&worker->sender.map.words->cancel, s + 1, memory_order_release);
        }
    }
}

static bool covers(const tercio__chunk *chunk, const tercio_run *run, uint64_t index)
{
    return !chunk->over && chunk->run == run && index - chunk->index < chunk->n_items &&
           index - chunk->index >= chunk->done;
}

/* In a message of several items only the one that is meant may be touched: its answer is replaced when it comes. */
static void mark_cancelled(tercio__chunk *chunk, uint64_t index)
{
    chunk->abort = TERCIO__ABORT_CANCEL;
    chunk->abort_item = (uint32_t)(index - chunk->index);
}

int tercio_cancel(tercio_run *run, uint64_t index)
{
    int error = tercio__run_check(run);
    if (error)
        return error;
    tercio_pool *pool = run->pool;
    error = TERCIO_EINVAL;
    tercio__lock(pool);
    tercio__pump(pool);
    for (tercio__chunk *chunk = pool->pending; chunk && error; chunk = chunk->next)
        if (covers(chunk, run, index)) {
            error = 0;
            if (chunk->n_items > 1) {
                mark_cancelled(chunk, index);
                continue;
            }
            tercio__cancel_pending(pool, chunk);
            break;
        }
    for (unsigned i = 0; i < pool->n_workers && error; i++) {
        tercio__worker *worker = &pool->workers[i];
        for (uint64_t s = worker->sender.reclaimed; s < worker->sender.tail && error; s++) {
            tercio__chunk *chunk = &worker->inflight[s % TERCIO__SLOTS];
            if (!covers(chunk, run, index))
                continue;
            mark_cancelled(chunk, index);
            error = 0;
            if (chunk->n_items == 1 && tercio__sender_revoke(&worker->sender, s)) {
                const unsigned char *bytes = tercio__sender_bytes(&worker->sender, s);
                tercio__garbage(pool, bytes + chunk->n_blocks * sizeof(tercio_block), chunk->head_size, 1, 0, false);
                tercio__answer(chunk, (tercio__entry){.status = TERCIO_ECANCELED}, tercio_error_text(TERCIO_ECANCELED));
                tercio__chunk_over(pool, chunk, (const tercio_block *)(const void *)bytes, TERCIO__BLOCKS_FREE);
                tercio__wake(worker);
            } else if (s == tercio__sender_passed(&worker->sender) && chunk->abort_item == chunk->done) {
                tercio__interrupt_worker(worker, s);
            }
        }
    }
    if (error == 0) {
        tercio__run_ring(run);
        tercio__tell_host(pool);
    }
    tercio__unlock(pool);
    tercio__drop_garbage(pool);
    return error;
}

void tercio_abort(tercio_pool *pool, tercio_run *run)
{
    if (pool == NULL || !tercio__is_ours(pool))
        return;
    tercio__lock(pool);
    tercio__drop_pending(pool, run);
    tercio__take_back(pool, run);
    for (unsigned i = 0; i < pool->n_workers; i++) {
        uint64_t sequence;
        tercio__worker *worker = &pool->workers[i];
        tercio__chunk *chunk = tercio__running_chunk(worker, &sequence);
        if (chunk == NULL || chunk->over || (run && chunk->run != run))
            continue;
        chunk->abort = TERCIO__ABORT_DROP;
        tercio__interrupt_worker(worker, sequence);
    }
    tercio__ring_all(pool);
    tercio__unlock(pool);
    tercio__drop_garbage(pool);
}
