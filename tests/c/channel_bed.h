/* SPDX-License-Identifier: MIT
 *
 * Both ends of a channel in one process.
 */
#ifndef CHANNEL_BED_H
#define CHANNEL_BED_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include <pthread.h>
#include <sched.h>

#include "channel/channel.h"

enum { RING = 4096 };

typedef struct {
    void *memory;
    tercio__sender sender;
    tercio__taker taker;
    uint64_t ends[TERCIO__SLOTS];
} channel;

static inline uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static inline void channel_open(channel *c)
{
    size_t size = TERCIO__CHANNEL_BYTES(RING);
    memset(c, 0, sizeof *c);
    c->memory = aligned_alloc(4096, (size + 4095) / 4096 * 4096);
    assert_non_null(c->memory);
    memset(c->memory, 0xA5, size); /* nothing may lean on zeros that reset doesn't write */
    tercio__channel_at(&c->sender.map, c->memory, RING);
    tercio__channel_reset(&c->sender.map, 0, 0);
    tercio__channel_at(&c->taker.map, c->memory, RING);
}

static inline void channel_close(channel *c)
{
    free(c->memory);
}

/* What collect.c does for each slot that the worker has passed. */
static inline void reclaim(channel *c)
{
    uint64_t passed = tercio__sender_passed(&c->sender);
    while (c->sender.reclaimed < passed) {
        c->sender.down_freed = c->ends[c->sender.reclaimed % TERCIO__SLOTS];
        c->sender.reclaimed++;
    }
}

static inline bool put(channel *c, uint64_t index, const void *bytes, size_t size)
{
    tercio__letter letter = {.index = index, .n_items = 1, .head = {bytes, size}};
    uint64_t end;
    if (!tercio__sender_has_room(&c->sender, tercio__letter_bytes(&letter)))
        return false;
    uint64_t sequence = tercio__sender_put(&c->sender, &letter, &end);
    c->ends[sequence % TERCIO__SLOTS] = end;
    return true;
}

static inline void fill(unsigned char *bytes, size_t size, uint64_t index)
{
    for (size_t i = 0; i < size; i++)
        bytes[i] = (unsigned char)(index * 7 + i * 13);
}

static inline bool is_filled(const unsigned char *bytes, size_t size, uint64_t index)
{
    for (size_t i = 0; i < size; i++)
        if (bytes[i] != (unsigned char)(index * 7 + i * 13))
            return false;
    return true;
}

static inline size_t size_of(uint64_t index)
{
    uint64_t random = index * 2654435761u + 88172645463325252u;
    next_random(&random);
    return (size_t)(next_random(&random) % (RING / 8));
}

#endif
