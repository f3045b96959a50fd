/* SPDX-License-Identifier: MIT
 *
 * What is owed for one message: its large parts on their way down, its place in the counters, an answer for each of its
 * items, and the blocks of the answers on their way up. dispatch.c chooses the worker, pending.c holds what none can take.
 */
#ifndef TERCIO_POOL_MESSAGE_H
#define TERCIO_POOL_MESSAGE_H

#include <stdbool.h>
#include <stdint.h>

#include "state/message.h"
#include "state/result.h"
#include "tercio.h"

/* The message is over, but for its bytes in the ring: its context, its part of the counters, its large parts.
 * They are freed (no worker has them, or it is dead), or stay lent to worker number `lent_to` - 1 until it returns
 * them. */
enum { TERCIO__BLOCKS_FREE = 0 };

void tercio__chunk_over(tercio_pool *, tercio__chunk *, const tercio_block *blocks, uint32_t lent_to);
/* The message is answered, or over: it counts no more. */
void tercio__unhold(tercio_pool *, tercio__chunk *);
/* An answer of the engine's own for the next item of a chunk; index and cookie are filled in here. */
void tercio__answer(tercio__chunk *, tercio__entry, const char *message);
/* Gives back the large parts of a result that nobody has taken. */
void tercio__return_blocks(tercio_pool *, tercio_result *);
/* Drops unread entries of an inbox. */
void tercio__drop_inbox(tercio_pool *, tercio__inbox *);
/* Makes result->out of the block that it lies in; the view is to be closed after it. Returns: whether it was one. */
bool tercio__make_whole(tercio_pool *, tercio_result *, tercio_view *);
/* Of why a message was stopped, only the cancelling of an item that is still to come goes on with it. */
void tercio__keep_mark(tercio__chunk *chunk);
/* Places the large parts of a message. blocks[] has room for n_parts. On error nothing is left. */
int tercio__place_parts(tercio_pool *pool, const tercio_message *message, tercio__chunk *chunk, tercio_block *blocks);
void tercio__message_begin(tercio_run *run, const tercio_message *message, tercio__chunk *chunk);
void tercio__message_count(tercio__chunk *chunk);
uint64_t tercio__ring_bytes_for(const tercio_pool *pool, const tercio_message *message);

#endif
