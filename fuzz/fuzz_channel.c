/* SPDX-License-Identifier: MIT
 *
 * Both ends of a channel over memory that the other end has filled with anything: records of the up ring, and slots
 * with what they point to. What they hand out has to lie in the channel, and they have to come to an end.
 */
#include <stdlib.h>

#include "channel/channel.h"

enum { RING = 4096 };

static unsigned char *memory;

static void touch(const void *data, size_t size)
{
    /* The sanitizer's own look at the bytes: they are the channel's. */
    static volatile unsigned sum;
    for (size_t i = 0; i < size; i++)
        sum += ((const unsigned char *)data)[i];
    (void)sum;
}

static void read_up(tercio__channel_map *map, uint64_t tail, uint64_t told, uint64_t read)
{
    unsigned char out[8 * 24];
    tercio__sender sender = {.map = *map};
    tercio__record record;
    const unsigned char *bytes;
    int error = 0;
    atomic_store(&sender.up_read, read);
    atomic_store(&map->words->up_tail, tail);
    atomic_store(&map->words->up_told, told);
    for (unsigned n = 0; (bytes = tercio__receiver_peek(&sender, &record, &error)) != NULL; n++) {
        if (n > RING)
            abort(); /* each record has a size: there can't be more */
        size_t size = record.payload == TERCIO__IN_BLOCK ? 0 : record.payload;
        touch(bytes, record.n_blocks * sizeof(tercio_block) + size);
        if (record.kind == TERCIO__REC_SHORT && n % 3 == 2) {
            uint32_t count = tercio__receiver_land(&sender, &record, 8, out, size < 24 ? size : 24);
            touch(out, count * (size < 24 ? size : 24));
            if (count)
                continue;
        } else if (record.kind == TERCIO__REC_SHORT && n % 3 == 1) {
            uint32_t taken, count = tercio__receiver_row(&sender, &record, RING, &taken);
            tercio_bytes row = {bytes - sizeof(tercio__short), taken}, answer;
            while (tercio__row_next(&row, &answer))
                touch(answer.data, answer.size);
            tercio__receiver_pass_row(&sender, count, taken);
            continue;
        }
        tercio__receiver_next(&sender, &record);
    }
    tercio__receiver_done(&sender);
}

static void read_down(tercio__channel_map *map, uint64_t head)
{
    tercio__taker taker = {.map = *map, .head = head};
    tercio__slot *slot;
    for (unsigned n = 0; n < 2 * TERCIO__SLOTS; n++) {
        int found = tercio__taker_take(&taker, &slot);
        if (found == TERCIO__TAKE_NOTHING)
            break;
        if (found == TERCIO__TAKE_REVOKED)
            continue;
        const tercio_block *blocks;
        tercio_bytes bytes;
        if (tercio__taker_message(&taker, slot, &blocks, &bytes) == 0) {
            touch(blocks, (slot->n_blocks & ~TERCIO__IN_BLOCK) * sizeof *blocks);
            touch(bytes.data, bytes.size);
        }
        tercio__taker_pass(&taker);
    }
}

/* One byte: which; eight each: where the ends are; the rest is laid over ring and slots. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    tercio__channel_map map;
    uint64_t ends[2];
    if (memory == NULL)
        memory = aligned_alloc(4096, TERCIO__CHANNEL_BYTES(RING));
    if (memory == NULL || size < 1 + sizeof ends)
        return 0;
    uint8_t which = data[0];
    memcpy(ends, data + 1, sizeof ends);
    data += 1 + sizeof ends;
    size -= 1 + sizeof ends;
    memset(memory, 0, TERCIO__CHANNEL_BYTES(RING));
    tercio__channel_at(&map, memory, RING);
    tercio__channel_reset(&map, 0, 0);
    if (which & 1) {
        memcpy(map.up, data, size < RING ? size : RING);
        /* Mostly near each other, as they are: what is far from any truth is refused at once. */
        uint64_t read = which & 2 ? ends[0] : ends[0] % RING / 8 * 8;
        uint64_t tail = which & 4 ? ends[1] : read + ends[1] % (RING + 64) / 8 * 8;
        read_up(&map, tail, which & 8 ? ends[0] + ends[1] : tail, read);
    } else {
        size_t slots = TERCIO__SLOTS * sizeof(tercio__slot);
        memcpy(map.slots, data, size < slots ? size : slots);
        if (which & 2) /* states that fit, or nothing else would ever be looked at */
            for (uint64_t i = 0; i < TERCIO__SLOTS; i++)
                atomic_store(&map.slots[i].word, i << 2 | (which & 4 ? i % 4 : TERCIO__READY));
        read_down(&map, which & 2 ? 0 : ends[0]);
    }
    return 0;
}
