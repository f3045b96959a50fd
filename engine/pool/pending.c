/* SPDX-License-Identifier: MIT
 *
 * Messages that wait in the pool: those that no worker had room for, and those that came back from a worker which died,
 * ended, or was relieved of them. Each owns a copy of its bytes.
 */
#include "pool/pending.h"

#include <stdlib.h>
#include <string.h>

#include "channel/channel.h"
#include "channel/layout.h"
#include "memory/arena.h"
#include "memory/block.h"
#include "pool/garbage.h"
#include "pool/message.h"
#include "pool/wake.h"
#include "state/pool.h"
#include "tercio.h"

/* Behind those of its run that come before it, else in front. */
static void insert(tercio_pool *pool, tercio__chunk *chunk)
{
    tercio__assert_locked(pool);
    tercio__chunk **at = &pool->pending, **here = at;
    for (unsigned left = chunk->run->n_pending; *at && left; at = &(*at)->next) {
        if ((*at)->run != chunk->run)
            continue;
        if ((*at)->turn > chunk->turn)
            break;
        left--;
        here = &(*at)->next;
    }
    chunk->next = *here;
    if (chunk->next == NULL)
        pool->pending_end = &chunk->next;
    *here = chunk;
    chunk->run->n_pending += tercio__is_ordered(chunk->run);
}

static uint64_t copy_bytes(const tercio__chunk *chunk)
{
    return sizeof *chunk + chunk->n_blocks * sizeof(tercio_block) + chunk->head_size;
}

int tercio__defer(tercio_run *run, const tercio_message *message)
{
    tercio__assert_locked(run->pool);
    tercio_pool *pool = run->pool;
    if (tercio__ring_bytes_for(pool, message) > pool->page->ring_bytes / 2)
        return TERCIO_ETOOBIG;
    tercio__chunk *chunk = malloc(sizeof *chunk);
    if (chunk == NULL)
        return TERCIO_ENOMEM;
    tercio__message_begin(run, message, chunk);
    chunk->copy = malloc(message->n_parts * sizeof(tercio_block) + message->parts[0].size + 8);
    if (chunk->copy == NULL) {
        free(chunk);
        return TERCIO_ENOMEM;
    }
    int error = tercio__place_parts(pool, message, chunk, (tercio_block *)(void *)chunk->copy);
    if (error) {
        free(chunk->copy);
        free(chunk);
        return error;
    }
    if (chunk->head_size)
        memcpy(chunk->copy + chunk->n_blocks * sizeof(tercio_block), message->parts[0].data, chunk->head_size);
    run->refused_bytes = 0;
    run->refused_items = 0;
    tercio__message_count(chunk);
    pool->pending_bytes += copy_bytes(chunk);
    run->n_pending += tercio__is_ordered(run);
    *pool->pending_end = chunk;
    pool->pending_end = &chunk->next;
    return 0;
}

void tercio__unlink_pending(tercio_pool *pool, tercio__chunk **at, tercio_run *run)
{
    tercio__assert_locked(pool);
    tercio__chunk *chunk = *at;
    run->n_pending -= tercio__is_ordered(run);
    *at = chunk->next;
    pool->pending_bytes -= copy_bytes(chunk);
    if (pool->pending_end == &chunk->next)
        pool->pending_end = at;
    free(chunk->copy);
    free(chunk);
}

/* What a worker was lent it may still read, or has returned already: another one gets copies. */
static int lend_again(tercio__worker *worker, tercio_block *blocks, uint32_t n)
{
    tercio__arena *arena = worker->pool->arena;
    for (uint32_t i = 0; i < n; i++) {
        tercio_block copy;
        int error =
            tercio__arena_put(arena, tercio__arena_data(arena, &blocks[i]), blocks[i].size, TERCIO__BLOCK_HELD, &copy);
        if (error) {
            while (i > 0)
                tercio__arena_free(arena, &blocks[--i]);
            return error;
        }
        blocks[i] = copy;
    }
    return 0;
}

int tercio__requeue(tercio__worker *worker, uint64_t sequence, bool seen)
{
    tercio__assert_locked(worker->pool);
    tercio_pool *pool = worker->pool;
    tercio__chunk *from = &worker->inflight[sequence % TERCIO__SLOTS], *chunk = malloc(sizeof *chunk);
    const unsigned char *bytes = tercio__sender_bytes(&worker->sender, sequence);
    size_t size = from->n_blocks * sizeof(tercio_block) + from->head_size;
    if (chunk == NULL)
        return TERCIO_ENOMEM;
    *chunk = *from;
    chunk->copy = malloc(size + 8);
    if (chunk->copy == NULL)
        goto fail;
    memcpy(chunk->copy, bytes, size);
    if (seen && from->n_blocks) {
        if (lend_again(worker, (tercio_block *)(void *)chunk->copy, from->n_blocks))
            goto fail;
        for (uint32_t i = 0; i < from->n_blocks; i++)
            tercio__arena_unhold(pool->arena, &((const tercio_block *)(const void *)bytes)[i], worker->index + 1);
    }
    tercio__keep_mark(chunk);
    pool->pending_bytes += copy_bytes(chunk);
    insert(pool, chunk);
    /* The ring's bytes stay spent until the worker passes them, but nothing is owed for them any more. */
    from->over = true;
    from->run = NULL;
    from->context = NULL;
    return 0;
fail:
    free(chunk->copy);
    free(chunk);
    return TERCIO_ENOMEM;
}

void tercio__drop_pending(tercio_pool *pool, tercio_run *run)
{
    tercio__assert_locked(pool);
    tercio__chunk **at = &pool->pending;
    while (*at) {
        tercio__chunk *chunk = *at;
        if (run && chunk->run != run) {
            at = &chunk->next;
            continue;
        }
        tercio_run *of = chunk->run;
        tercio__garbage(pool, chunk->copy + chunk->n_blocks * sizeof(tercio_block), chunk->head_size, chunk->n_items,
                        chunk->done, false);
        tercio__chunk_over(pool, chunk, (const tercio_block *)(const void *)chunk->copy, TERCIO__BLOCKS_FREE);
        tercio__unlink_pending(pool, at, of);
    }
}

void tercio__cancel_pending(tercio_pool *pool, tercio__chunk *chunk)
{
    tercio__assert_locked(pool);
    tercio__chunk **at = &pool->pending;
    tercio_run *run = chunk->run;
    while (*at != chunk)
        at = &(*at)->next;
    tercio__garbage(pool, chunk->copy + chunk->n_blocks * sizeof(tercio_block), chunk->head_size, 1, 0, false);
    tercio__answer(chunk, (tercio__entry){.status = TERCIO_ECANCELED}, tercio_error_text(TERCIO_ECANCELED));
    tercio__chunk_over(pool, chunk, (const tercio_block *)(const void *)chunk->copy, TERCIO__BLOCKS_FREE);
    tercio__unlink_pending(pool, at, run);
}

void tercio__take_back(tercio_pool *pool, tercio_run *run)
{
    tercio__assert_locked(pool);
    for (unsigned i = 0; i < pool->n_workers; i++) {
        tercio__worker *worker = &pool->workers[i];
        bool revoked = false;
        if (worker->state != TERCIO_STATE_START)
            continue;
        for (uint64_t s = worker->sender.tail; s-- > worker->sender.reclaimed;) {
            tercio__chunk *chunk = &worker->inflight[s % TERCIO__SLOTS];
            if (chunk->over || (run && chunk->run != run) || !tercio__sender_revoke(&worker->sender, s))
                continue;
            revoked = true;
            const unsigned char *bytes = tercio__sender_bytes(&worker->sender, s);
            tercio__garbage(pool, bytes + chunk->n_blocks * sizeof(tercio_block), chunk->head_size, chunk->n_items,
                            chunk->done, false);
            tercio__chunk_over(pool, chunk, (const tercio_block *)(const void *)bytes, TERCIO__BLOCKS_FREE);
        }
        if (revoked)
            tercio__wake(worker); /* so that it passes them, and their room comes back */
    }
}
