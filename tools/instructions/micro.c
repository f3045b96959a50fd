/* SPDX-License-Identifier: MIT
 *
 * The engine's hot words, each many times, between marks that callgrind counts from. Both ends are in one process and
 * one thread: the same instructions every time.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <valgrind/callgrind.h>

#include "channel/channel.h"
#include "plat/plat.h"

enum { RING = 64 * 1024, TIMES = 10000 };

static tercio__sender sender;
static tercio__taker taker;
static uint64_t ends[TERCIO__SLOTS];

static void fail(const char *what)
{
    fprintf(stderr, "micro: %s\n", what);
    exit(1);
}

static void put(uint64_t index)
{
    static const unsigned char bytes[16];
    tercio__letter letter = {.index = index, .n_items = 1, .head = {bytes, sizeof bytes}};
    uint64_t passed = tercio__sender_passed(&sender), end;
    while (sender.reclaimed < passed)
        sender.down_freed = ends[sender.reclaimed++ % TERCIO__SLOTS];
    if (!tercio__sender_has_room(&sender, tercio__letter_bytes(&letter)))
        fail("no room");
    uint64_t sequence = tercio__sender_put(&sender, &letter, &end);
    ends[sequence % TERCIO__SLOTS] = end;
}

static void take(void)
{
    tercio__slot *slot;
    const tercio_block *blocks;
    tercio_bytes head;
    if (tercio__taker_take(&taker, &slot) != TERCIO__TAKE_MESSAGE ||
        tercio__taker_message(&taker, slot, &blocks, &head) < 0 || head.size != 16)
        fail("nothing to take");
    tercio__taker_pass(&taker);
}

static void answer(void)
{
    tercio__record *record = tercio__taker_reserve(&taker, 8);
    if (record == NULL)
        fail("no room for an answer");
    record->kind = TERCIO__REC_RESULT;
    record->n_blocks = 0;
    record->payload = 8;
    record->sequence = taker.head - 1;
    tercio__taker_publish(&taker, record);
}

static void receive(void)
{
    tercio__record record;
    int error = 0;
    if (tercio__receiver_peek(&sender, &record, &error) == NULL)
        fail("no answer");
    tercio__receiver_next(&sender, &record);
    tercio__receiver_done(&sender);
}

static void measure(const char *name, void (*once)(uint64_t))
{
    char text[100];
    for (uint64_t i = 0; i < 600; i++) /* what is done once is done, and rings have wrapped */
        once(i);
    CALLGRIND_DUMP_STATS_AT("-");
    for (uint64_t i = 0; i < TIMES; i++)
        once(i);
    snprintf(text, sizeof text, "%s/%d", name, TIMES);
    CALLGRIND_DUMP_STATS_AT(text);
}

static void message(uint64_t i)
{
    put(i);
    take();
}

static void message_and_answer(uint64_t i)
{
    put(i);
    take();
    answer();
    receive();
}

static void message_taken_back(uint64_t i)
{
    put(i);
    if (!tercio__sender_revoke(&sender, sender.tail - 1))
        fail("can't be taken back");
    tercio__slot *slot;
    if (tercio__taker_take(&taker, &slot) != TERCIO__TAKE_REVOKED)
        fail("is still there");
}

static int bell = -1;
static _Atomic uint32_t word;

static void ring_bell(uint64_t i)
{
    (void)i;
    tercio__bell_ring(bell);
    tercio__bell_clear(bell);
}

static void wake_nobody(uint64_t i)
{
    (void)i;
    tercio__word_wake(&word);
}

int main(void)
{
    size_t size = (TERCIO__CHANNEL_BYTES(RING) + 4095) / 4096 * 4096;
    void *memory = aligned_alloc(4096, size);
    if (memory == NULL)
        fail("no memory");
    memset(memory, 0, size);
    tercio__channel_at(&sender.map, memory, RING);
    tercio__channel_reset(&sender.map, 0, 0);
    tercio__channel_at(&taker.map, memory, RING);
    bell = tercio__bell_create();
    if (bell < 0)
        fail("no bell");
    measure("ring: put and take", message);
    measure("ring: put, take, answer, receive", message_and_answer);
    measure("ring: put and take back", message_taken_back);
    measure("bell: ring and clear", ring_bell);
    measure("bell: wake when nobody sleeps", wake_nobody);
    free(memory);
    return 0;
}
