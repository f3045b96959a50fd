/* SPDX-License-Identifier: MIT */
#include "channel/channel.h"

#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "base/atomics.h"
#include "base/fault.h"
#include "channel/layout.h"
#include "tercio.h"

static inline uint64_t round8(uint64_t bytes)
{
    return (bytes + 7) & ~UINT64_C(7);
}

static inline tercio__slot *slot_of(const tercio__channel_map *map, uint64_t sequence)
{
    return &map->slots[sequence % TERCIO__SLOTS];
}

void tercio__channel_at(tercio__channel_map *map, void *memory, uint64_t ring_bytes)
{
    unsigned char *base = memory;
    map->words = memory;
    map->slots = (tercio__slot *)(void *)(base + TERCIO__SLOTS_AT);
    map->down = base + TERCIO__DOWN_AT;
    map->up = base + TERCIO__UP_AT(ring_bytes);
    map->ring_bytes = ring_bytes;
}

void tercio__channel_reset(tercio__channel_map *map, uint32_t index, uint32_t generation)
{
    memset(map->words, 0, sizeof *map->words);
    memset(map->slots, 0, TERCIO__SLOTS * sizeof *map->slots);
    map->words->magic = TERCIO__MAGIC;
    map->words->index = index;
    map->words->generation = generation;
    map->words->cpu = -1;
}

/* ---- Parent: down ---------------------------------------------------------------------------------------------- */

/* A message never wraps: where it doesn't fit before the end, the rest of the ring is left out. */
static uint64_t place(uint64_t used, uint64_t ring_bytes, uint64_t bytes)
{
    uint64_t at = used % ring_bytes;
    return at + bytes > ring_bytes ? used + (ring_bytes - at) : used;
}

bool tercio__sender_has_room(const tercio__sender *sender, uint64_t bytes)
{
    uint64_t ring = sender->map.ring_bytes;
    return sender->tail - sender->reclaimed < TERCIO__SLOTS && bytes <= ring &&
           place(sender->down_used, ring, bytes) + bytes - sender->down_freed <= ring;
}

uint64_t tercio__sender_put(tercio__sender *sender, const tercio__letter *letter, uint64_t *end)
{
    uint64_t ring = sender->map.ring_bytes, sequence = sender->tail++;
    uint64_t start = place(sender->down_used, ring, tercio__letter_bytes(letter));
    size_t block_bytes = letter->n_blocks * sizeof(tercio_block);
    unsigned char *at = sender->map.down + start % ring;
    tercio__slot *slot = slot_of(&sender->map, sequence);

    if (block_bytes)
        memcpy(at, letter->blocks, block_bytes);
    if (!letter->head_in_block && letter->head.size)
        memcpy(at + block_bytes, letter->head.data, letter->head.size);
    slot->index = letter->index;
    slot->n_items = letter->n_items;
    slot->skip = letter->skip;
    slot->offset = (uint32_t)(start % ring);
    slot->size = letter->head_in_block ? 0 : (uint32_t)letter->head.size;
    slot->n_blocks = letter->n_blocks | (letter->head_in_block ? TERCIO__IN_BLOCK : 0);
    slot->context = letter->context;
    slot->context_offset = letter->context_block.offset;
    slot->context_size = letter->context_block.size;
    slot->flags = letter->flags;
    *end = sender->down_used = start + tercio__letter_bytes(letter);
    tercio__at("put: filled");
    STORE(slot->word, sequence << 2 | TERCIO__READY, release); /* R1 */
    tercio__at("put: ready");
    STORE(sender->map.words->down_tail, sender->tail, relaxed);
    return sequence;
}

bool tercio__sender_revoke(tercio__sender *sender, uint64_t sequence)
{
    uint64_t ready = sequence << 2 | TERCIO__READY;
    tercio__at("revoke: about to");
    bool revoked = atomic_compare_exchange_strong_explicit(&slot_of(&sender->map, sequence)->word, &ready,
                                                           sequence << 2 | TERCIO__REVOKED, memory_order_acq_rel,
                                                           memory_order_acquire);
    tercio__at("revoke: tried");
    return revoked;
}

uint64_t tercio__sender_passed(const tercio__sender *sender)
{
    uint64_t head = LOAD(sender->map.words->down_head, acquire); /* A2 */
    /* A worker gone mad can't make us reclaim what was never sent. */
    return head - sender->reclaimed <= sender->tail - sender->reclaimed ? head : sender->reclaimed;
}

const unsigned char *tercio__sender_bytes(const tercio__sender *sender, uint64_t sequence)
{
    return sender->map.down + slot_of(&sender->map, sequence)->offset;
}

/* ---- Parent: up ------------------------------------------------------------------------------------------------ */

/* A whole record's own numbers fit together. */
static bool is_possible(const tercio__record *record)
{
    uint64_t payload = record->payload == TERCIO__IN_BLOCK ? 0 : record->payload;
    if (sizeof *record + record->n_blocks * sizeof(tercio_block) + payload > record->size ||
        record->kind > TERCIO__REC_PAD)
        return false;
    return record->payload != TERCIO__IN_BLOCK || record->n_blocks > 0;
}

/* The record that a short one stands for; false where its size can't be. */
static bool expand(const tercio__sender *sender, const unsigned char *bytes, tercio__record *record)
{
    tercio__short head;
    memcpy(&head, bytes, sizeof head);
    if (head.unused > 7 || head.size < sizeof head + head.unused)
        return false;
    *record = (tercio__record){.size = head.size,
                               .kind = TERCIO__REC_SHORT,
                               .sequence = sender->up_sequence,
                               .item = sender->up_item + 1,
                               .payload = (uint32_t)(head.size - sizeof head - head.unused)};
    return true;
}

const unsigned char *tercio__receiver_peek(tercio__sender *sender, tercio__record *record, int *error)
{
    uint64_t ring = sender->map.ring_bytes;
    *error = 0;
    for (;;) {
        uint64_t read = LOAD(sender->up_read, relaxed); /* ours */
        bool told = tercio__receiver_has_news(sender);
        uint64_t ahead = LOAD(sender->map.words->up_tail, acquire) - read; /* A3 */
        uint64_t at = read % ring;
        if (ahead == 0 && told) /* of nothing */
            goto impossible;
        if (ahead == 0)
            return NULL;
        if (ahead > ring || ahead % 8 || ahead < 8)
            goto impossible;
        const unsigned char *bytes = sender->map.up + at;
        if (ring - at < sizeof *record) { /* too short for a header: it is padding, and nothing says so */
            if (ahead < ring - at)
                goto impossible;
            STORE(sender->up_read, read + (ring - at), relaxed);
            continue;
        }
        /* Copied before it is looked at: what lies there may change. */
        memcpy(record, bytes, sizeof(tercio__short));
        bool is_short = record->kind == TERCIO__REC_SHORT;
        size_t header = is_short ? sizeof(tercio__short) : sizeof *record;
        if (ahead < header)
            goto impossible;
        if (is_short) {
            tercio__short head;
            memcpy(&head, record, sizeof head);
            if (!expand(sender, (const unsigned char *)&head, record))
                goto impossible;
        } else {
            memcpy(record, bytes, sizeof *record);
        }
        uint64_t size = record->size;
        if (size < header || size % 8 || size > ahead || size > ring - at)
            goto impossible;
        if (is_short)
            return bytes + header;
        if (record->kind == TERCIO__REC_PAD) {
            STORE(sender->up_read, read + size, relaxed);
            continue;
        }
        if (record->kind == TERCIO__REC_SHORT || !is_possible(record)) /* SHORT: it has changed since the first look */
            goto impossible;
        return bytes + header;
    }
impossible:
    *error = TERCIO_EPROTOCOL;
    return NULL;
}

void tercio__receiver_next(tercio__sender *sender, const tercio__record *record)
{
    if (record->kind == TERCIO__REC_RESULT || record->kind == TERCIO__REC_SHORT) {
        sender->up_sequence = record->sequence;
        sender->up_item = record->item;
    }
    STORE(sender->up_read, LOAD(sender->up_read, relaxed) + record->size, relaxed);
}

enum { ROW_BYTES = 16 << 10 };

uint32_t tercio__receiver_row(const tercio__sender *sender, const tercio__record *record, uint32_t most,
                              uint32_t *bytes)
{
    uint64_t ring = sender->map.ring_bytes, read = LOAD(sender->up_read, relaxed), at = read % ring;
    uint64_t ahead = LOAD(sender->map.words->up_tail, acquire) - read; /* A3 */
    uint64_t end = ahead < ring - at ? ahead : ring - at, used = record->size;
    uint32_t n = 1;
    while (n < most && used < ROW_BYTES && used < end && ring - at - used >= sizeof(tercio__record)) {
        tercio__short head;
        memcpy(&head, sender->map.up + at + used, sizeof head);
        if (head.kind != TERCIO__REC_SHORT || head.size % 8 || head.unused > 7 ||
            head.size < sizeof head + head.unused || head.size > end - used)
            break; /* peek will say what it is */
        used += head.size;
        n++;
    }
    *bytes = (uint32_t)used;
    return n;
}

uint32_t tercio__receiver_land(tercio__sender *sender, const tercio__record *record, uint32_t most, unsigned char *out,
                               size_t size)
{
    uint64_t ring = sender->map.ring_bytes, read = LOAD(sender->up_read, relaxed), at = read % ring;
    uint64_t ahead = LOAD(sender->map.words->up_tail, acquire) - read; /* A3 */
    uint64_t end = ahead < ring - at ? ahead : ring - at, used = 0, need = sizeof(tercio__short) + round8(size);
    const unsigned char *from = sender->map.up + at;
    tercio__short head,
        like = {.size = (uint32_t)need, .kind = TERCIO__REC_SHORT, .unused = (uint16_t)(round8(size) - size)};
    uint32_t n = 0;
    if (record->size != need)
        return 0;
    while (n < most && end - used >= need && ring - at - used >= sizeof(tercio__record)) {
        memcpy(&head, from + used, sizeof head);
        if (memcmp(&head, &like, sizeof head) != 0)
            break;     /* peek will say what it is */
        if (size == 8) /* a size known to the compiler: no call */
            memcpy(out, from + used + sizeof head, 8);
        else
            memcpy(out, from + used + sizeof head, size);
        out += size;
        used += need;
        n++;
    }
    sender->up_item += n;
    STORE(sender->up_read, read + used, relaxed);
    return n;
}

void tercio__receiver_pass_row(tercio__sender *sender, uint32_t n, uint32_t bytes)
{
    sender->up_item += n;
    STORE(sender->up_read, LOAD(sender->up_read, relaxed) + bytes, relaxed);
}

bool tercio__row_next(tercio_bytes *row, tercio_bytes *answer)
{
    tercio__short head;
    if (row->size < sizeof head)
        return false;
    memcpy(&head, row->data, sizeof head);
    if (head.size > row->size || head.unused > 7 || head.size < sizeof head + head.unused)
        return false;
    answer->data = (const unsigned char *)row->data + sizeof head;
    answer->size = head.size - sizeof head - head.unused;
    row->data = (const unsigned char *)row->data + head.size;
    row->size -= head.size;
    return true;
}

void tercio__receiver_done(tercio__sender *sender)
{
    tercio__at("up: read");
    STORE(sender->map.words->up_head, LOAD(sender->up_read, relaxed), release); /* R4 */
    tercio__at("up: room given back");
}

/* ---- Worker: down ---------------------------------------------------------------------------------------------- */

static bool is_filled(const tercio__taker *taker, uint64_t sequence)
{
    uint64_t word = LOAD(slot_of(&taker->map, sequence)->word, acquire); /* A1 */
    return word >> 2 == sequence && (word & 3) != TERCIO__EMPTY;
}

bool tercio__taker_has_next(const tercio__taker *taker)
{
    return is_filled(taker, taker->head);
}

bool tercio__taker_has_another(const tercio__taker *taker)
{
    return is_filled(taker, taker->head + 1);
}

int tercio__taker_take(tercio__taker *taker, tercio__slot **slot)
{
    tercio__slot *next = slot_of(&taker->map, taker->head);
    uint64_t word = LOAD(next->word, acquire); /* A1 */
    if (word >> 2 != taker->head || (word & 3) == TERCIO__EMPTY)
        return TERCIO__TAKE_NOTHING;
    tercio__at("take: seen");
    if (word == (taker->head << 2 | TERCIO__READY) &&
        atomic_compare_exchange_strong_explicit(&next->word, &word, taker->head << 2 | TERCIO__TAKEN,
                                                memory_order_acq_rel, memory_order_acquire)) {
        tercio__at("take: taken");
        *slot = next;
        return TERCIO__TAKE_MESSAGE;
    }
    tercio__taker_pass(taker);
    return TERCIO__TAKE_REVOKED;
}

void tercio__taker_pass(tercio__taker *taker)
{
    tercio__at("pass: about to");
    STORE(taker->map.words->down_head, ++taker->head, release); /* R2 */
    tercio__at("pass: passed");
}

int tercio__taker_message(const tercio__taker *taker, const tercio__slot *slot, const tercio_block **blocks,
                          tercio_bytes *head)
{
    uint64_t n_blocks = slot->n_blocks & ~TERCIO__IN_BLOCK;
    uint64_t offset = slot->offset, size = slot->size;
    if (offset % 8 || offset + n_blocks * sizeof(tercio_block) + size > taker->map.ring_bytes)
        return TERCIO_EPROTOCOL;
    if (slot->skip >= slot->n_items || ((slot->n_blocks & TERCIO__IN_BLOCK) && n_blocks == 0))
        return TERCIO_EPROTOCOL;
    *blocks = (const tercio_block *)(const void *)(taker->map.down + offset);
    head->data = taker->map.down + offset + n_blocks * sizeof(tercio_block);
    head->size = size;
    return 0;
}

/* ---- Worker: up ------------------------------------------------------------------------------------------------ */

tercio__record *tercio__taker_reserve(tercio__taker *taker, uint64_t bytes)
{
    uint64_t ring = taker->map.ring_bytes, need = sizeof(tercio__record) + round8(bytes);
    for (int look = 0; look < 2; look++) {
        uint64_t rest = ring - taker->up_at, pad = need > rest ? rest : 0;
        if (taker->up_tail + pad + need - taker->up_head <= ring) {
            if (pad) {
                /* Behind up_tail still: nobody reads it before the record that follows is published. */
                if (pad >= sizeof(tercio__record)) {
                    tercio__record padding = {.size = (uint32_t)pad, .kind = TERCIO__REC_PAD};
                    memcpy(taker->map.up + taker->up_at, &padding, sizeof padding);
                    tercio__at("up: padded");
                }
                taker->up_tail += pad;
                taker->up_at = 0;
            }
            tercio__record *record = (tercio__record *)(void *)(taker->map.up + taker->up_at);
            record->size = (uint32_t)need;
            return record;
        }
        /* Not once more after the last look: who waits for room waits until up_head is another than this one. */
        if (look == 0)
            taker->up_head = LOAD(taker->map.words->up_head, acquire); /* A4 */
    }
    return NULL;
}

static inline void publish(tercio__taker *taker, uint64_t bytes)
{
    tercio__at("up: written");
    taker->up_tail += bytes;
    taker->up_at += bytes;
    if (taker->up_at == taker->map.ring_bytes)
        taker->up_at = 0;
    STORE(taker->map.words->up_tail, taker->up_tail, release); /* R3 */
    tercio__at("up: published");
}

void tercio__taker_tell(tercio__taker *taker)
{
    STORE(taker->map.words->up_told, taker->up_tail, release);
    tercio__at("up: told");
}

void tercio__taker_publish(tercio__taker *taker, tercio__record *record)
{
    publish(taker, record->size);
}

bool tercio__taker_put_short(tercio__taker *taker, tercio_bytes answer)
{
    uint64_t ring = taker->map.ring_bytes, rest = ring - taker->up_at;
    uint64_t need = sizeof(tercio__short) + round8(answer.size);
    if (rest < sizeof(tercio__record) || need > rest || taker->up_tail + need - taker->up_head > ring)
        return false;
    unsigned char *at = taker->map.up + taker->up_at;
    tercio__short head = {
        .size = (uint32_t)need, .kind = TERCIO__REC_SHORT, .unused = (uint16_t)(need - sizeof head - answer.size)};
    memcpy(at, &head, sizeof head);
    if (answer.size == 8) /* a size known to the compiler: no call */
        memcpy(at + sizeof head, answer.data, 8);
    else if (answer.size)
        memcpy(at + sizeof head, answer.data, answer.size);
    publish(taker, need);
    return true;
}
