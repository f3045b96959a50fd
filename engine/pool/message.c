/* SPDX-License-Identifier: MIT
 *
 * The accounting of one message: its large parts on their way down, its place in the counters, an answer for each of
 * its items, and the blocks of the answers on their way up. dispatch.c chooses the worker; pending.c holds messages
 * that no worker can take.
 */
#include "pool/message.h"

#include <stdatomic.h>
#include <string.h>

#include "channel/channel.h"
#include "memory/arena.h"
#include "memory/block.h"
#include "memory/views.h"
#include "pool/context.h"
#include "pool/garbage.h"
#include "pool/inbox.h"
#include "pool/purge.h"
#include "pool/ring.h"
#include "state/pool.h"
#include "tercio.h"

/* Of why a message was stopped, only the cancelling of an item that is still to come goes on with it. */
void tercio__keep_mark(tercio__chunk *chunk)
{
    if (chunk->abort != TERCIO__ABORT_CANCEL || chunk->abort_item < chunk->done)
        chunk->abort = TERCIO__ABORT_NO;
}

/* Places the large parts of a message. blocks[] has room for n_parts. On error nothing is left. */
int tercio__place_parts(tercio_pool *pool, const tercio_message *message, tercio__chunk *chunk, tercio_block *blocks)
{
    tercio__assert_locked(pool);
    bool head_in_block = message->parts[0].size > tercio__inline_limit(pool->page->ring_bytes);
    size_t first = head_in_block ? 0 : 1;
    uint32_t done = 0;
    chunk->lent = 0;
    for (size_t i = first; i < message->n_parts; i++) {
        int error = tercio__arena_put(pool->arena, message->parts[i].data, message->parts[i].size, TERCIO__BLOCK_HELD,
                                      &blocks[done]);
        if (error) {
            while (done > 0)
                tercio__arena_free(pool->arena, &blocks[--done]);
            return error;
        }
        chunk->lent += message->parts[i].size;
        done++;
    }
    chunk->n_blocks = done;
    chunk->head_in_block = head_in_block;
    chunk->head_size = head_in_block ? 0 : (uint32_t)message->parts[0].size;
    pool->lent_bytes += chunk->lent;
    if (chunk->lent)
        tercio__note_moved(pool, chunk->lent);
    return 0;
}

void tercio__message_begin(tercio_run *run, const tercio_message *message, tercio__chunk *chunk)
{
    *chunk = (tercio__chunk){
        .run = run,
        .timeout_ns = run->timeout_ns,
        .index = message->index,
        .cookie = message->cookie,
        .n_items = message->n_items,
        .context = run->context,
        .head_size = (uint32_t)message->parts[0].size,
        .held = run->holds,
    };
}

void tercio__message_count(tercio__chunk *chunk)
{
    tercio__assert_locked(chunk->run->pool);
    tercio_run *run = chunk->run;
    chunk->turn = run->n_messages++;
    run->n_active += chunk->n_items;
    run->n_chunks++;
    run->pool->n_held += chunk->held;
    if (run->context)
        run->context->refs++;
}

uint64_t tercio__ring_bytes_for(const tercio_pool *pool, const tercio_message *message)
{
    bool head_in_block = message->parts[0].size > tercio__inline_limit(pool->page->ring_bytes);
    return head_in_block ? message->n_parts * sizeof(tercio_block)
                         : (message->n_parts - 1) * sizeof(tercio_block) + (message->parts[0].size + 7) / 8 * 8;
}

void tercio__unhold(tercio_pool *pool, tercio__chunk *chunk)
{
    tercio__assert_locked(pool);
    if (!chunk->held)
        return;
    chunk->held = false;
    pool->n_held--;
    tercio__ring_for_room(pool);
}

void tercio__chunk_over(tercio_pool *pool, tercio__chunk *chunk, const tercio_block *blocks, uint32_t lent_to)
{
    tercio__assert_locked(pool);
    tercio_run *run = chunk->run;
    if (chunk->over)
        return;
    chunk->over = true;
    for (uint32_t i = 0; i < chunk->n_blocks; i++)
        if (lent_to)
            tercio__arena_unhold(pool->arena, &blocks[i], lent_to);
        else
            tercio__arena_free(pool->arena, &blocks[i]);
    pool->lent_bytes -= chunk->lent;
    if (run) {
        run->n_active -= chunk->n_items - chunk->done;
        run->n_chunks--;
    }
    tercio__context_unref(pool, chunk->context);
    chunk->run = NULL;
    chunk->context = NULL;
    tercio__unhold(pool, chunk);
}

void tercio__answer(tercio__chunk *chunk, tercio__entry entry, const char *message)
{
    tercio__assert_locked(chunk->run->pool);
    tercio_run *run = chunk->run;
    entry.index = chunk->index + chunk->done;
    entry.cookie = chunk->cookie;
    entry.attempts = chunk->attempts;
    entry.message_size = message ? (uint32_t)strlen(message) + 1 : 0;
    if (tercio__inbox_add(&run->incoming, &entry, NULL, NULL, message))
        run->error = TERCIO_ENOMEM;
    run->news = NEWS;
    chunk->done++;
    chunk->attempts = 0; /* the next item was never begun */
    run->n_active--;
    run->n_answered++;
    if (chunk->done == chunk->n_items)
        tercio__unhold(run->pool, chunk);
}

void tercio__return_blocks(tercio_pool *pool, tercio_result *result)
{
    size_t n = 0;
    for (size_t i = 0; i < result->n_blocks; i++)
        if (result->blocks[i].offset) {
            tercio__block_return(pool->file, &result->blocks[i]);
            n++;
        }
    result->n_blocks = 0;
    if (n)
        atomic_fetch_sub_explicit(&pool->blocks_out, n, memory_order_release);
}

static void drop_entry(void *user, tercio_result *result)
{
    tercio_pool *pool = user;
    tercio__return_blocks(pool, result);
    tercio_bytes row = result->out, answer;
    if (result->n_items > 1)
        while (tercio__row_next(&row, &answer))
            tercio__garbage(pool, answer.data, answer.size, 1, 0, true);
    else if (result->status != TERCIO_EDIED && result->out.size)
        tercio__garbage(pool, result->out.data, result->out.size, 1, 0, true);
}

void tercio__drop_inbox(tercio_pool *pool, tercio__inbox *inbox)
{
    tercio__inbox_clear(inbox, drop_entry, pool);
}

/* An answer that was too large for the ring lies in a block. */
bool tercio__make_whole(tercio_pool *pool, tercio_result *result, tercio_view *view)
{
    if (result->n_blocks == 0 || result->out.size || tercio__view_open(pool->file, &result->blocks[0], view))
        return false;
    result->out = (tercio_bytes){view->data, view->size};
    result->n_blocks = 0;
    return true;
}
