/* SPDX-License-Identifier: MIT
 *
 * The two ends of a channel. layout.h says what lies where and in which order it is published; this is the
 * code for it, and nothing else touches those words. Neither end trusts the other: an offset or a size that can't
 * be is TERCIO_EPROTOCOL, and no such byte is followed.
 */
#ifndef TERCIO_CHANNEL_H
#define TERCIO_CHANNEL_H

#include <stdbool.h>
#include <string.h>

#include "channel/layout.h"
#include "tercio.h"

/* Where a channel lies in this process. */
typedef struct {
    tercio__channel *words;
    tercio__slot *slots;
    unsigned char *down, *up;
    uint64_t ring_bytes;
} tercio__channel_map;

void tercio__channel_at(tercio__channel_map *, void *memory, uint64_t ring_bytes);

/* Makes a channel new: nobody else has it mapped, or the other end is dead. */
void tercio__channel_reset(tercio__channel_map *, uint32_t index, uint32_t generation);

/* Longest parts[0] that travels in a ring; what is longer travels in a block. */
static inline uint64_t tercio__inline_limit(uint64_t ring_bytes)
{
    return ring_bytes / 8;
}

/* ---- The parent's end ------------------------------------------------------------------------------------------ */

typedef struct {
    tercio__channel_map map;
    uint64_t tail;                  /* sequence of the next slot */
    uint64_t reclaimed;             /* sequences below it are over */
    uint64_t down_used, down_freed; /* bytes ever taken from and given back to the down ring */
    _Atomic uint64_t up_read;       /* bytes ever read; relaxed: others peek at it to see whether there is news */
    uint64_t up_sequence;           /* of the answer that was read last: a short record is the next one's */
    uint32_t up_item;
} tercio__sender;

/* What goes into a slot. `blocks` are descriptors, `head` is parts[0] unless it is the first of the blocks. */
typedef struct {
    uint64_t index, cookie;
    uint32_t n_items, skip, n_blocks, flags;
    bool head_in_block;
    const tercio_block *blocks;
    tercio_bytes head;
    uint32_t context;
    tercio_block context_block;
} tercio__letter;

/* True when `bytes` of ring and a slot are free (after tercio__sender_reclaim). */
bool tercio__sender_has_room(const tercio__sender *, uint64_t bytes);
static inline uint64_t tercio__letter_bytes(const tercio__letter *letter)
{
    return letter->n_blocks * sizeof(tercio_block) + (letter->head_in_block ? 0 : (letter->head.size + 7) / 8 * 8);
}
/* Publishes a letter. Needs room. Returns its sequence; *end is for tercio__sender_free. */
uint64_t tercio__sender_put(tercio__sender *, const tercio__letter *, uint64_t *end);
/* Takes the message of `sequence` back. Returns: true when the worker will never see it. */
bool tercio__sender_revoke(tercio__sender *, uint64_t sequence);
/* Where the worker is: sequences below are over. */
uint64_t tercio__sender_passed(const tercio__sender *);
/* The bytes of a message that lies in the down ring: written by us, so good as long as it isn't reclaimed. */
const unsigned char *tercio__sender_bytes(const tercio__sender *, uint64_t sequence);

/* The next record, or NULL when there is none; *error is set to TERCIO_EPROTOCOL when it is impossible. PADs are
 * skipped. The record and its bytes lie in shared memory: its checked copy is *record, its bytes are at the result
 * until tercio__receiver_done. */
const unsigned char *tercio__receiver_peek(tercio__sender *, tercio__record *record, int *error);
void tercio__receiver_next(tercio__sender *, const tercio__record *);
/* `record` is a short one that peek has found: how many of them lie in a row from there, at most `most` (and 16 KiB).
 * *bytes is what they take, headers included; they begin with the header before peek's result. */
uint32_t tercio__receiver_row(const tercio__sender *, const tercio__record *record, uint32_t most, uint32_t *bytes);
/* The same, for answers that are all of `size` bytes: copies them side by side to `out`, and passes them. */
uint32_t tercio__receiver_land(tercio__sender *, const tercio__record *record, uint32_t most, unsigned char *out,
                               size_t size);
/* Passes a row of `n`. */
void tercio__receiver_pass_row(tercio__sender *, uint32_t n, uint32_t bytes);
/* The next answer of a row that was copied out; false at its end, or where it makes no sense. */
bool tercio__row_next(tercio_bytes *row, tercio_bytes *answer);
/* Publishes what was read: the worker may use the room again. */
void tercio__receiver_done(tercio__sender *);
/* The worker has told of something that was not read. More may lie there. */
static inline bool tercio__receiver_has_news(const tercio__sender *sender)
{
    return (int64_t)(atomic_load_explicit(&sender->map.words->up_told, memory_order_acquire) -
                     atomic_load_explicit(&sender->up_read, memory_order_relaxed)) > 0;
}

/* ---- The worker's end ------------------------------------------------------------------------------------------ */

typedef struct {
    tercio__channel_map map;
    uint64_t head;             /* sequence of the next slot */
    uint64_t up_tail, up_head; /* bytes ever written; bytes known to be read */
    uint64_t up_at;            /* up_tail within the ring */
} tercio__taker;

enum { TERCIO__TAKE_NOTHING, TERCIO__TAKE_MESSAGE, TERCIO__TAKE_REVOKED };

/* Looks at the next slot. TERCIO__TAKE_MESSAGE: it is ours now. TERCIO__TAKE_REVOKED: it was passed, look again. */
int tercio__taker_take(tercio__taker *, tercio__slot **slot);
bool tercio__taker_has_next(const tercio__taker *);
/* ... behind the one that is ours. */
bool tercio__taker_has_another(const tercio__taker *);
/* The message is finished, whatever came of it. */
void tercio__taker_pass(tercio__taker *);
/* Where a slot's blocks and bytes are; TERCIO_EPROTOCOL when they can't be. */
int tercio__taker_message(const tercio__taker *, const tercio__slot *, const tercio_block **blocks, tercio_bytes *head);

/* Room for a record with `bytes` behind its header, or NULL while the parent lags behind. The bytes go to the
 * address behind the header; tercio__taker_publish makes it known. */
tercio__record *tercio__taker_reserve(tercio__taker *, uint64_t bytes);
void tercio__taker_publish(tercio__taker *, tercio__record *);
/* Publishes a good answer of at most TERCIO__SHORT_MOST bytes: that of the item behind the one that was published
 * last, which must be of the same message. Returns: false where it has to be a whole record. */
bool tercio__taker_put_short(tercio__taker *, tercio_bytes answer);
/* Makes what was published heard of: channel.up_told. */
void tercio__taker_tell(tercio__taker *);
static inline uint64_t tercio__taker_unread(const tercio__taker *taker)
{
    return taker->up_tail - taker->up_head;
}

#endif
