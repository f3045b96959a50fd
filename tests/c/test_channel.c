/* SPDX-License-Identifier: MIT
 *
 * Both ends of a channel in one process: what is put is taken, once, whole and in order; what is taken back is never
 * seen; rings wrap at any place; and what no worker of ours would write is refused, never followed.
 */
#include "channel_bed.h"

/* ---- Down ---------------------------------------------------------------------------------------------------------- */

static void down_of_all_sizes(void **state)
{
    channel c;
    unsigned char bytes[RING];
    (void)state;
    channel_open(&c);
    uint64_t sent = 0, seen = 0, random = 7;
    while (seen < 20000) {
        for (uint64_t n = next_random(&random) % 12; n > 0; n--) {
            fill(bytes, size_of(sent), sent);
            if (!put(&c, sent, bytes, size_of(sent)))
                break;
            sent++;
        }
        for (uint64_t n = next_random(&random) % 12; n > 0; n--) {
            tercio__slot *slot;
            const tercio_block *blocks;
            tercio_bytes head;
            int took = tercio__taker_take(&c.taker, &slot);
            if (took == TERCIO__TAKE_NOTHING) {
                assert_int_equal(seen, sent);
                assert_false(tercio__taker_has_next(&c.taker));
                break;
            }
            assert_int_equal(took, TERCIO__TAKE_MESSAGE);
            assert_int_equal(slot->index, seen);
            assert_int_equal(tercio__taker_message(&c.taker, slot, &blocks, &head), 0);
            assert_int_equal(head.size, size_of(seen));
            assert_true(is_filled(head.data, head.size, seen));
            assert_false(tercio__sender_revoke(&c.sender, seen)); /* it is the worker's */
            tercio__taker_pass(&c.taker);
            seen++;
        }
        reclaim(&c);
    }
    channel_close(&c);
}

static void room_ends_and_comes_back(void **state)
{
    channel c;
    unsigned char bytes[RING / 8] = {0};
    uint64_t n = 0;
    (void)state;
    channel_open(&c);
    while (put(&c, n, bytes, sizeof bytes)) /* bytes run out first */
        n++;
    assert_int_equal(n, 8);
    for (uint64_t i = 0; i < n; i++)
        assert_true(tercio__sender_revoke(&c.sender, i));
    assert_false(put(&c, n, bytes, sizeof bytes)); /* spent until the worker has passed them */
    tercio__slot *slot;
    for (uint64_t i = 0; i < n; i++)
        assert_int_equal(tercio__taker_take(&c.taker, &slot), TERCIO__TAKE_REVOKED);
    assert_int_equal(tercio__taker_take(&c.taker, &slot), TERCIO__TAKE_NOTHING);
    reclaim(&c);
    for (n = 0; put(&c, n, bytes, 0); n++) /* slots run out */
        continue;
    assert_int_equal(n, TERCIO__SLOTS);
    channel_close(&c);
}

/* A slot is used again and again: an old word is never taken for a new one. */
static void slots_used_again(void **state)
{
    channel c;
    tercio__slot *slot;
    (void)state;
    channel_open(&c);
    for (uint64_t round = 0; round < 10 * TERCIO__SLOTS; round++) {
        assert_true(put(&c, round, NULL, 0));
        if (round >= TERCIO__SLOTS)
            assert_false(tercio__sender_revoke(&c.sender, round - TERCIO__SLOTS));
        if (round % 3 == 0)
            assert_true(tercio__sender_revoke(&c.sender, round));
        assert_int_equal(tercio__taker_take(&c.taker, &slot),
                         round % 3 == 0 ? TERCIO__TAKE_REVOKED : TERCIO__TAKE_MESSAGE);
        if (round % 3)
            tercio__taker_pass(&c.taker);
        assert_int_equal(tercio__taker_take(&c.taker, &slot), TERCIO__TAKE_NOTHING);
        reclaim(&c);
        assert_int_equal(c.sender.reclaimed, round + 1);
    }
    channel_close(&c);
}

/* ---- Up ------------------------------------------------------------------------------------------------------------ */

static void up_of_all_sizes(void **state)
{
    channel c;
    (void)state;
    channel_open(&c);
    uint64_t sent = 0, seen = 0, told = 0, random = 11;
    while (seen < 20000) {
        for (uint64_t n = next_random(&random) % 12; n > 0; n--) {
            size_t size = size_of(sent);
            tercio__record *record = tercio__taker_reserve(&c.taker, size);
            if (record == NULL)
                break;
            record->kind = TERCIO__REC_RESULT;
            record->n_blocks = 0;
            record->sequence = sent;
            record->payload = (uint32_t)size;
            fill((unsigned char *)(record + 1), size, sent);
            assert_int_equal(tercio__receiver_has_news(&c.sender), told > seen);
            tercio__taker_publish(&c.taker, record);
            sent++;
            if (next_random(&random) % 3 == 0) {
                tercio__taker_tell(&c.taker);
                told = sent;
            }
        }
        for (uint64_t n = next_random(&random) % 12; n > 0; n--) {
            tercio__record record;
            int error;
            const unsigned char *bytes = tercio__receiver_peek(&c.sender, &record, &error);
            assert_int_equal(error, 0);
            if (bytes == NULL) {
                assert_int_equal(seen, sent);
                break;
            }
            assert_int_equal(record.sequence, seen);
            assert_int_equal(record.payload, size_of(seen));
            assert_true(is_filled(bytes, record.payload, seen));
            tercio__receiver_next(&c.sender, &record);
            seen++;
        }
        tercio__receiver_done(&c.sender);
    }
    channel_close(&c);
}

/* Answers of messages of 50 items: the first of each in a whole record, the others short where they can be. */
static void short_records_of_all_sizes(void **state)
{
    enum { ITEMS = 50 };
    channel c;
    unsigned char bytes[RING];
    (void)state;
    channel_open(&c);
    uint64_t sent = 0, seen = 0, random = 23, short_ones = 0, in_rows = 0;
    while (seen < 40000) {
        for (uint64_t n = next_random(&random) % 40; n > 0; n--) {
            size_t size = size_of(sent) / 8;
            fill(bytes, size, sent);
            if (sent % ITEMS && tercio__taker_put_short(&c.taker, (tercio_bytes){bytes, size})) {
                sent++;
                short_ones++;
                continue;
            }
            tercio__record *record = tercio__taker_reserve(&c.taker, size);
            if (record == NULL)
                break;
            *record = (tercio__record){.size = record->size,
                                       .kind = TERCIO__REC_RESULT,
                                       .sequence = sent / ITEMS,
                                       .item = (uint32_t)(sent % ITEMS),
                                       .payload = (uint32_t)size};
            memcpy(record + 1, bytes, size);
            tercio__taker_publish(&c.taker, record);
            sent++;
        }
        for (uint64_t n = next_random(&random) % 12; n > 0; n--) {
            tercio__record record;
            int error;
            const unsigned char *found = tercio__receiver_peek(&c.sender, &record, &error);
            assert_int_equal(error, 0);
            if (found == NULL) {
                assert_int_equal(seen, sent);
                break;
            }
            assert_int_equal(record.sequence, seen / ITEMS);
            assert_int_equal(record.item, seen % ITEMS);
            if (record.kind == TERCIO__REC_RESULT || next_random(&random) % 2) {
                assert_int_equal(record.payload, size_of(seen) / 8);
                assert_true(is_filled(found, record.payload, seen));
                tercio__receiver_next(&c.sender, &record);
                seen++;
                continue;
            }
            uint32_t most = 1 + (uint32_t)next_random(&random) % ITEMS, size;
            uint32_t count = tercio__receiver_row(&c.sender, &record, most, &size);
            assert_in_range(count, 1, most);
            tercio_bytes row = {found - sizeof(tercio__short), size}, answer;
            for (uint32_t i = 0; i < count; i++, seen++, in_rows++) {
                assert_true(tercio__row_next(&row, &answer));
                assert_int_equal(answer.size, size_of(seen) / 8);
                assert_true(is_filled(answer.data, answer.size, seen));
            }
            assert_false(tercio__row_next(&row, &answer));
            tercio__receiver_pass_row(&c.sender, count, size);
        }
        tercio__receiver_done(&c.sender);
    }
    assert_true(short_ones > sent / 2 && in_rows > sent / 8); /* it was about them */
    channel_close(&c);
}

/* Answers of one size land side by side, however many of them are asked for; others are left to be looked at. */
static void answers_land(void **state)
{
    enum { ITEMS = 90 };
    static const size_t sizes[] = {8, 1, 24, 7};
    channel c;
    unsigned char bytes[64], out[ITEMS * sizeof bytes];
    uint64_t random = 29, landed = 0;
    (void)state;
    channel_open(&c);
    for (uint64_t sequence = 0; sequence < 4000; sequence++) {
        size_t size = sizes[sequence % 4];
        uint32_t odd = 1 + (uint32_t)next_random(&random) % (2 * ITEMS), seen = 0, n = 0;
        for (; n < ITEMS; n++) {
            size_t its = n == odd ? size + 1 : size;
            fill(bytes, its, sequence + n);
            if (n == 0) {
                tercio__record *record = tercio__taker_reserve(&c.taker, its);
                assert_non_null(record);
                *record = (tercio__record){
                    .size = record->size, .kind = TERCIO__REC_RESULT, .sequence = sequence, .payload = (uint32_t)its};
                memcpy(record + 1, bytes, its);
                tercio__taker_publish(&c.taker, record);
            } else if (!tercio__taker_put_short(&c.taker, (tercio_bytes){bytes, its})) {
                break;
            }
        }
        tercio__taker_tell(&c.taker);
        while (seen < n) {
            tercio__record record;
            int error;
            const unsigned char *found = tercio__receiver_peek(&c.sender, &record, &error);
            assert_non_null(found);
            assert_int_equal(record.item, seen);
            uint32_t most = 1 + (uint32_t)next_random(&random) % (n - seen), count = 0;
            if (record.kind == TERCIO__REC_SHORT) {
                memset(out, 0xee, sizeof out);
                count = tercio__receiver_land(&c.sender, &record, most, out, size);
                assert_true(count <= most && (count > 0 || seen == odd));
                for (uint32_t i = 0; i < count; i++)
                    assert_true(is_filled(out + i * size, size, sequence + seen + i));
                assert_int_equal(out[count * size], 0xee);
            }
            if (count == 0) {
                assert_true(is_filled(found, record.payload, sequence + seen));
                tercio__receiver_next(&c.sender, &record);
            }
            landed += count;
            seen += count ? count : 1;
        }
        assert_false(tercio__receiver_has_news(&c.sender));
        tercio__receiver_done(&c.sender);
    }
    assert_true(landed > 100000); /* it was about them */
    channel_close(&c);
}

static void up_room_ends_and_comes_back(void **state)
{
    channel c;
    tercio__record *made, record;
    int error, n = 0;
    (void)state;
    channel_open(&c);
    for (; (made = tercio__taker_reserve(&c.taker, 96)) != NULL; n++) {
        made->kind = TERCIO__REC_ALIVE;
        made->n_blocks = 0;
        made->payload = 96;
        tercio__taker_publish(&c.taker, made);
    }
    assert_int_equal(n, RING / 128);
    assert_non_null(tercio__receiver_peek(&c.sender, &record, &error));
    tercio__receiver_next(&c.sender, &record);
    assert_null(tercio__taker_reserve(&c.taker, 96)); /* read, but not given back */
    tercio__receiver_done(&c.sender);
    assert_non_null(tercio__taker_reserve(&c.taker, 96));
    channel_close(&c);
}

/* ---- The other end has gone mad -------------------------------------------------------------------------------------- */

/* Reads until nothing or nonsense is found. Every byte that peek names is looked at, for the sanitizer to see. */
static void read_all(channel *c)
{
    tercio__record record;
    const unsigned char *bytes;
    volatile unsigned char sum = 0;
    int error = 0, n = 0;
    while ((bytes = tercio__receiver_peek(&c->sender, &record, &error)) != NULL) {
        size_t payload = record.payload == TERCIO__IN_BLOCK ? 0 : record.payload;
        size_t size = record.n_blocks * sizeof(tercio_block) + payload;
        assert_true(bytes >= c->sender.map.up && bytes + size <= c->sender.map.up + RING);
        for (size_t i = 0; i < size; i++)
            sum = (unsigned char)(sum + bytes[i]);
        assert_true(++n <= RING / 8); /* it comes to an end */
        if (record.kind != TERCIO__REC_SHORT || n % 2) {
            tercio__receiver_next(&c->sender, &record);
            continue;
        }
        uint32_t row_size, count = tercio__receiver_row(&c->sender, &record, RING, &row_size);
        tercio_bytes row = {bytes - sizeof(tercio__short), row_size}, answer;
        assert_true((const unsigned char *)row.data + row_size <= c->sender.map.up + RING);
        for (; tercio__row_next(&row, &answer); count--)
            for (size_t i = 0; i < answer.size; i++)
                sum = (unsigned char)(sum + ((const unsigned char *)answer.data)[i]);
        assert_int_equal(count, 0);
        tercio__receiver_pass_row(&c->sender, 1, row_size);
    }
    assert_true(error == 0 || error == TERCIO_EPROTOCOL);
}

static void nonsense_in_the_up_ring(void **state)
{
    channel c;
    uint64_t random = 13;
    (void)state;
    channel_open(&c);
    for (int round = 0; round < 20000; round++) {
        uint64_t *words = (uint64_t *)(void *)c.sender.map.up;
        for (size_t i = 0; i < RING / 8; i++)
            words[i] = next_random(&random);
        /* Often nearly right, so that more than the first check is reached. */
        for (size_t at = 0; at < RING; at += 8 * (next_random(&random) % 16 + 4)) {
            tercio__record record = {.size = (uint32_t)(next_random(&random) % 20 * 8),
                                     .kind = (uint16_t)(next_random(&random) % 10),
                                     .n_blocks = (uint16_t)(next_random(&random) % 3),
                                     .payload = next_random(&random) % 8 ? (uint32_t)(next_random(&random) % 128)
                                                                         : TERCIO__IN_BLOCK};
            if (at + sizeof record <= RING)
                memcpy(c.sender.map.up + at, &record, sizeof record);
        }
        uint64_t from = next_random(&random) % (4 * RING) / 8 * 8, ahead = next_random(&random) % (RING + 64);
        atomic_store(&c.sender.up_read, from);
        uint64_t tail = round % 3 ? from + ahead / 8 * 8 : next_random(&random);
        atomic_store(&c.sender.map.words->up_tail, tail);
        atomic_store(&c.sender.map.words->up_told, round % 5 ? tail : next_random(&random));
        read_all(&c);
    }
    channel_close(&c);
}

static void nonsense_in_the_head(void **state)
{
    channel c;
    uint64_t random = 17;
    (void)state;
    channel_open(&c);
    for (int i = 0; i < 100; i++)
        assert_true(put(&c, (uint64_t)i, "x", 1));
    for (int round = 0; round < 10000; round++) {
        uint64_t head = round % 2 ? next_random(&random) : next_random(&random) % 300;
        atomic_store(&c.sender.map.words->down_head, head);
        assert_in_range(tercio__sender_passed(&c.sender), c.sender.reclaimed, c.sender.tail);
    }
    channel_close(&c);
}

static void nonsense_in_slots(void **state)
{
    channel c;
    uint64_t random = 19;
    volatile unsigned char sum = 0;
    (void)state;
    channel_open(&c);
    for (int round = 0; round < 100000; round++) {
        tercio__slot slot = {.n_items = (uint32_t)(next_random(&random) % 4),
                             .skip = (uint32_t)(next_random(&random) % 4),
                             .offset = (uint32_t)(next_random(&random) % (2 * RING)),
                             .size = (uint32_t)(next_random(&random) % (2 * RING)),
                             .n_blocks = (uint32_t)(next_random(&random) % 64)};
        if (round % 4 == 0)
            slot.size = (uint32_t)next_random(&random);
        if (round % 4 == 1)
            slot.n_blocks = (uint32_t)next_random(&random);
        if (round % 2)
            slot.offset &= ~7u;
        const tercio_block *blocks;
        tercio_bytes head;
        int error = tercio__taker_message(&c.taker, &slot, &blocks, &head);
        assert_true(error == 0 || error == TERCIO_EPROTOCOL);
        if (error)
            continue;
        const unsigned char *from = (const unsigned char *)blocks, *bytes = head.data;
        assert_true(from >= c.taker.map.down && bytes + head.size <= c.taker.map.down + RING);
        assert_true(slot.skip < slot.n_items);
        for (const unsigned char *at = from; at < bytes + head.size; at++)
            sum = (unsigned char)(sum + *at);
    }
    channel_close(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(down_of_all_sizes),
        cmocka_unit_test(room_ends_and_comes_back),
        cmocka_unit_test(slots_used_again),
        cmocka_unit_test(up_of_all_sizes),
        cmocka_unit_test(short_records_of_all_sizes),
        cmocka_unit_test(answers_land),
        cmocka_unit_test(up_room_ends_and_comes_back),
        cmocka_unit_test(nonsense_in_the_up_ring),
        cmocka_unit_test(nonsense_in_the_head),
        cmocka_unit_test(nonsense_in_slots),
    };
    return cmocka_run_group_tests_name("channel", tests, NULL, NULL);
}
