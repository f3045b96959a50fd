/* SPDX-License-Identifier: MIT
 *
 * The shared memory of a pool, word by word. A process may be killed between any two instructions here, so nothing
 * in it is a lock, and every word has one writer (or is changed by compare-and-swap alone).
 *
 * The file of a pool:
 *
 *     0            pool page (struct tercio__page)
 *     4096         channel 0, channel 1, ... (channel_bytes each); where the system's pages are larger, behind the first
 *     beyond       segments of arenas, handed out by page.file_end
 *
 * A channel joins the parent (the process that opened the pool) and one worker:
 *
 *     struct tercio__channel    words
 *     slots                     TERCIO__SLOTS descriptors of messages, parent -> worker
 *     down ring                 ring_bytes: what the slots point to. Written by the parent alone
 *     up ring                   ring_bytes: records, worker -> parent. Written by the worker alone
 *
 * Down: the parent copies a message into the down ring, fills the slot of sequence s (s = 0, 1, ...; it lives at
 * s % TERCIO__SLOTS), and stores `s << 2 | READY` in slot.word (R1). The worker looks at the slot of its next
 * sequence (A1) and changes READY to TAKEN by compare-and-swap; the parent takes a message back by changing READY to
 * REVOKED the same way. Just one of the two wins, and since the word holds the sequence, an old one can't be
 * mistaken for a new one. When the worker has finished with a slot (run it, or seen it revoked) it stores
 * down_head = s + 1 (R2); only then does the parent use the slot and its bytes again (A2). A revoked slot therefore
 * stays spent until the worker passes it.
 *
 * Up: the worker writes a record (struct tercio__record and its bytes) behind up_tail and then stores the new
 * up_tail (R3). What lies behind up_tail when a worker dies was never said. The parent reads up to up_tail (A3),
 * copies the records out and stores up_head (R4); the worker reads it when it needs room (A4).
 * A reader that looks for news reads up_told instead, which follows up_tail only where the worker would ring: each answer is
 * said before the next item begins, but a line that another CPU polls is not written for each.
 * Records never wrap: where one doesn't fit before the end of the ring, a record of kind PAD fills the rest; where
 * there is no room for a whole header, nothing says so.
 * A good answer that is small follows the one before it, of the same message, as a short record: 8 bytes of header
 * (struct tercio__short), its sequence and item are known. Such records in a row are copied out as they lie.
 *
 * Bells are event counts: the sleeper announces itself (B1), looks once more, then sleeps; the waker publishes,
 * fences, and rings only if somebody announced itself (B2); only then is the announcement taken back. Between B1 and B2 both sides have a sequentially
 * consistent fence, so at least one of them sees the other.
 *
 * word                 written by            read by     order and label
 * -------------------  --------------------  ----------  ------------------------------------------------------
 * page.file_end        all, fetch_add        all         relaxed: hands out ranges, publishes nothing
 * page.caller_wants    parent sets, worker   all         seq_cst (B1/B2): what the caller sleeps for. A worker rings
 *                      clears by CAS                     and then clears the announcement that it has seen
 * page.supervisor_wants    same                  all         same, for the supervisor
 * page.phases_timed    parent                worker      relaxed, fenced on both sides: whoever stores (this or phase)
 *                                                        looks at the other one after that
 * page.n_shares        parent                worker      release/acquire: shares[] below it are complete
 * channel.gate         parent                worker      release/acquire: everything the parent wrote before start
 * channel.stop         parent                worker      release/acquire
 * channel.lifespan     parent                worker      relaxed: a limit, read anew after each chunk
 * channel.trim         parent                worker      relaxed, fenced by B1/B2: counts how often free memory is to
 *                                                        be given back
 * channel.cancel       parent                worker      release/acquire: sequence + 1 of a chunk that is not wanted
 * channel.down_tail    parent                worker      relaxed: a hint for the low water mark; slots are the truth
 * channel.low_water    parent                worker      relaxed: fenced by B1/B2
 * channel.up_head      parent                worker      release/acquire (R4/A4)
 * slot.word            both, by CAS; parent  both        release/acquire (R1/A1); CAS acq_rel
 *                      stores READY
 * slot, the rest       parent                worker      plain, published by R1
 * channel.down_head    worker                parent      release/acquire (R2/A2)
 * channel.up_tail      worker                parent      release/acquire (R3/A3)
 * channel.up_told      worker                parent      release/acquire: never ahead of up_tail
 * channel.bell         parent, own signal    worker      seq_cst (B2): the word it sleeps on
 *                      handlers: fetch_add
 * channel.asleep       worker sets, parent   both        seq_cst (B1/B2): what it sleeps for, TERCIO__ASLEEP...
 *                      clears by exchange
 * channel.phase        worker                parent      release/acquire: TERCIO_STATE_...
 * channel.item_*       worker                parent      release/acquire: which item runs since when
 * channel.leaving_since  worker              parent      release/acquire: since when it runs what a process runs at
 *                                                        its end
 * channel.n_*, ns_*    worker                anyone      relaxed: counters, for people
 * channel.longest*[]   worker                anyone      relaxed: may be seen half changed, and then shows an item
 *                                                        twice or with another's text until the next look
 * channel.segments[]   worker                parent      release/acquire on n_segments
 */
#ifndef TERCIO_CHANNEL_LAYOUT_H
#define TERCIO_CHANNEL_LAYOUT_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "tercio.h"

#define TERCIO__MAGIC UINT64_C(0x6f69637265743031)
#define TERCIO__SLOTS 256u   /* a power of two */
#define TERCIO__SEGMENTS 64u /* most segments of a worker's arena */
#define TERCIO__PAGE_BYTES 4096u
#define TERCIO__LINE _Alignas(64)
#define TERCIO__TOP ((uint32_t)TERCIO_LONGEST)
#define TERCIO__SHARES 128u /* most buffers of tercio_share */

enum { TERCIO__EMPTY, TERCIO__READY, TERCIO__TAKEN, TERCIO__REVOKED }; /* low two bits of slot.word */
enum { TERCIO__GATE_CLOSED, TERCIO__GATE_OPEN, TERCIO__GATE_DEAD };
enum { TERCIO__STOP_NO, TERCIO__STOP_DRAINED, TERCIO__STOP_NOW }; /* when the ring is empty; before the next item */
/* channel.asleep. A worker that sleeps for work wakes for anything but room: it has all the room that it may want. */
enum { TERCIO__AWAKE, TERCIO__ASLEEP, TERCIO__ASLEEP_FOR_ROOM };
/* caller_wants, supervisor_wants: what is wanted, in the low bits, and above them the number of the announcement. */
enum { TERCIO__WANT_NOTHING, TERCIO__WANT_LOW_WATER, TERCIO__WANT_ANY };
#define TERCIO__WANTS 3u
#define TERCIO__ANNOUNCED 4u

/* Kinds of record. The first four are TERCIO_KIND_... of tercio.h. */
enum {
    TERCIO__REC_RESULT,
    TERCIO__REC_START,
    TERCIO__REC_INIT,
    TERCIO__REC_EXIT,
    TERCIO__REC_ALIVE,
    TERCIO__REC_GOODBYE,
    TERCIO__REC_SHORT,
    TERCIO__REC_PAD
};

typedef struct {
    uint64_t offset, size;
} tercio__range;

typedef struct {
    uint64_t magic;
    uint32_t version, n_channels;
    uint64_t channel_bytes, ring_bytes;
    uint64_t prepare_offset, prepare_size; /* the block of options.prepare; size 0: none */
    int32_t method, parent_pid;
    uint64_t arena_bytes;
    uint64_t table_hash;
    uint64_t blocked;        /* signals, in the thread that opened the pool */
    uint32_t takes_children; /* a worker that is killed takes along what it has started */
    TERCIO__LINE _Atomic uint64_t file_end;
    TERCIO__LINE _Atomic uint32_t caller_wants;
    _Atomic uint32_t supervisor_wants;
    TERCIO__LINE _Atomic uint32_t phases_timed; /* init or exit has a limit: the supervisor hears of their beginning */
    _Atomic uint32_t n_shares;
    tercio__range shares[TERCIO__SHARES]; /* blocks of tercio_share; TERCIO__SHARE_WRITABLE in size */
} tercio__page;

#define TERCIO__SHARE_WRITABLE (UINT64_C(1) << 63)

/* One message. 64 bytes: a cache line. */
typedef struct {
    _Atomic uint64_t word; /* sequence << 2 | state */
    uint64_t index;        /* of the first item */
    uint32_t n_items, skip;
    uint32_t offset, size;   /* of parts[0] in the down ring; n_blocks block descriptors lie before it */
    uint32_t n_blocks;       /* TERCIO__IN_BLOCK: parts[0] is the first of the blocks */
    uint32_t context;        /* id; 0 is none */
    uint64_t context_offset; /* of a block that holds a packed context (or, under threading, an address) */
    uint64_t context_size;
    uint32_t flags; /* TERCIO__TIMED, TERCIO__QUIET */
    uint32_t reserved;
} tercio__slot;

#define TERCIO__TIMED 1u /* note when each item starts: the run has a deadline, or people want to see it */
#define TERCIO__QUIET 2u /* nobody waits for the single answers of this message: ring at its end, or at half a ring */

#define TERCIO__IN_BLOCK UINT32_C(0x80000000)

typedef struct {
    uint32_t size; /* of all, this header included, a multiple of 8 */
    uint16_t kind;
    uint16_t n_blocks; /* descriptors that follow the header; then payload */
    uint64_t sequence; /* of the slot */
    uint32_t item;     /* within the message */
    int32_t status;    /* 0 or TERCIO_EFAILED */
    int32_t code;
    uint32_t payload; /* bytes; TERCIO__IN_BLOCK: parts[0] is the first of the blocks */
} tercio__record;

typedef struct {
    uint32_t size;   /* of all, this header included, a multiple of 8 */
    uint16_t kind;   /* TERCIO__REC_SHORT */
    uint16_t unused; /* bytes at its end, 0 ... 7 */
} tercio__short;

#define TERCIO__SHORT_MOST 1024u /* bytes of an answer that travels so */

/* Texts stay where they are while the list is sorted anew: an entry names its own. */
typedef struct {
    _Atomic uint64_t ns, index;
    _Atomic uint32_t text;
} tercio__longest; /* text: 1 + place; 0: none yet */
typedef _Atomic uint64_t tercio__text[TERCIO_LONGEST_TEXT / 8];

typedef struct {
    /* written by the parent before the gate opens */
    uint64_t magic;
    uint32_t index, generation;
    int32_t cpu;     /* to be pinned to; -1: none */
    uint64_t begun;  /* when the parent began to start it: ns, monotonic */
    uint64_t family; /* that the worker founds; 0: none */
    TERCIO__LINE _Atomic uint32_t gate;

    TERCIO__LINE _Atomic uint64_t down_tail; /* written by the parent */
    _Atomic uint64_t low_water;
    _Atomic uint64_t cancel;
    _Atomic uint32_t stop, lifespan, trim;
    TERCIO__LINE _Atomic uint64_t up_head; /* written by the parent when it has read */

    TERCIO__LINE _Atomic uint64_t down_head; /* written by the worker */
    TERCIO__LINE _Atomic uint64_t up_tail;
    TERCIO__LINE _Atomic uint64_t up_told;

    TERCIO__LINE _Atomic uint32_t bell; /* both */
    _Atomic uint32_t asleep;

    TERCIO__LINE _Atomic uint32_t phase; /* written by the worker, for people and deadlines */
    _Atomic uint64_t item_since;         /* ns; 0: nothing runs */
    _Atomic uint64_t item_sequence;      /* slot << 32 | item, of what runs */
    _Atomic uint64_t n_done, n_chunks;
    _Atomic uint64_t ns_start, ns_init, ns_wait, ns_work, ns_exit;
    _Atomic uint64_t leaving_since;       /* ns; 0: it isn't at its end */
    tercio__longest longest[TERCIO__TOP]; /* the longest first */
    tercio__text longest_text[TERCIO__TOP];

    TERCIO__LINE _Atomic uint32_t n_segments;
    tercio__range segments[TERCIO__SEGMENTS];
} tercio__channel;

_Static_assert(sizeof(tercio__slot) == 64, "a slot is a cache line");
_Static_assert(sizeof(tercio__record) == 32 && sizeof(tercio__short) == 8, "records are framed by eights");
_Static_assert(offsetof(tercio__record, kind) == offsetof(tercio__short, kind), "the kind says which of the two it is");
_Static_assert(sizeof(tercio__channel) <= TERCIO__PAGE_BYTES, "the words of a channel fill one page");
_Static_assert(offsetof(tercio__channel, phase) == 512 && offsetof(tercio__channel, ns_exit) == 584,
               "python/tercio/_top.py reads them there");
_Static_assert(sizeof(tercio__page) <= TERCIO__PAGE_BYTES, "the pool's words fill one page");

/* Where things lie in a channel. */
#define TERCIO__SLOTS_AT TERCIO__PAGE_BYTES
#define TERCIO__DOWN_AT (TERCIO__SLOTS_AT + TERCIO__SLOTS * sizeof(tercio__slot))
#define TERCIO__UP_AT(ring_bytes) (TERCIO__DOWN_AT + (ring_bytes))
#define TERCIO__CHANNEL_BYTES(ring_bytes) (TERCIO__DOWN_AT + 2 * (ring_bytes))
/* In the file each of them begins where a page of the system's does, which may be larger than ours: what is mapped by
 * itself has to. */
static inline uint64_t tercio__page_round(uint64_t bytes, uint64_t page)
{
    return (bytes + page - 1) / page * page;
}

#endif
