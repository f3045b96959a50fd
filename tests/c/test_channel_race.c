/* SPDX-License-Identifier: MIT
 *
 * Both ends of a channel at once, in two threads: what is put is taken or taken back, once.
 */
#include "channel_bed.h"

enum { MESSAGES = 100000 };

typedef struct {
    channel c;
    _Atomic bool ended;
    bool damaged;
    uint64_t n_run;
} race;

static void *work(void *data)
{
    race *r = data;
    for (;;) {
        tercio__slot *slot;
        const tercio_block *blocks;
        tercio_bytes head;
        bool ended = atomic_load(&r->ended); /* before the look: what was put before the end is seen */
        switch (tercio__taker_take(&r->c.taker, &slot)) {
        case TERCIO__TAKE_NOTHING:
            if (ended)
                return NULL;
            sched_yield();
            break;
        case TERCIO__TAKE_MESSAGE: {
            uint64_t index = slot->index;
            if (tercio__taker_message(&r->c.taker, slot, &blocks, &head) || head.size != size_of(index) ||
                !is_filled(head.data, head.size, index))
                r->damaged = true;
            tercio__record *record;
            while ((record = tercio__taker_reserve(&r->c.taker, head.size)) == NULL)
                sched_yield();
            record->kind = TERCIO__REC_RESULT;
            record->n_blocks = 0;
            record->sequence = index;
            record->payload = (uint32_t)head.size;
            memcpy(record + 1, head.data, head.size);
            tercio__taker_publish(&r->c.taker, record);
            tercio__taker_pass(&r->c.taker);
            r->n_run++;
            break;
        }
        default:
            break;
        }
    }
}

static void collect(race *r, unsigned char *ran)
{
    tercio__record record;
    const unsigned char *bytes;
    int error;
    uint64_t passed = tercio__sender_passed(&r->c.sender);
    while ((bytes = tercio__receiver_peek(&r->c.sender, &record, &error)) != NULL) {
        assert_true(record.sequence < MESSAGES && record.payload == size_of(record.sequence));
        assert_true(is_filled(bytes, record.payload, record.sequence));
        ran[record.sequence]++;
        tercio__receiver_next(&r->c.sender, &record);
    }
    assert_int_equal(error, 0);
    tercio__receiver_done(&r->c.sender);
    while (r->c.sender.reclaimed < passed) {
        r->c.sender.down_freed = r->c.ends[r->c.sender.reclaimed % TERCIO__SLOTS];
        r->c.sender.reclaimed++;
    }
}

typedef struct {
    channel c;
    _Atomic bool ended;
} filling;

static void *read_on(void *data)
{
    filling *f = data;
    tercio__record record;
    int error;
    while (!atomic_load(&f->ended)) {
        if (tercio__receiver_peek(&f->c.sender, &record, &error) == NULL)
            continue;
        tercio__receiver_next(&f->c.sender, &record);
        tercio__receiver_done(&f->c.sender);
    }
    return NULL;
}

/* A worker that finds no room sleeps until up_head differs from the one that it knows, so that one must leave none. */
static void no_room_is_no_room_that_is_known(void **state)
{
    enum { FILLINGS = 5000000 };
    static filling f;
    pthread_t thread;
    const uint64_t bytes = 400, need = sizeof(tercio__record) + bytes;
    unsigned refused = 0;
    (void)state;
    channel_open(&f.c);
    assert_int_equal(pthread_create(&thread, NULL, read_on, &f), 0);
    for (int i = 0; i < FILLINGS; i++) {
        tercio__record *record = tercio__taker_reserve(&f.c.taker, bytes);
        if (record) {
            *record = (tercio__record){.size = record->size, .kind = TERCIO__REC_ALIVE, .payload = (uint32_t)bytes};
            tercio__taker_publish(&f.c.taker, record);
            continue;
        }
        uint64_t rest = RING - f.c.taker.up_at, pad = need > rest ? rest : 0;
        assert_true(tercio__taker_unread(&f.c.taker) + pad + need > RING);
        refused++;
    }
    atomic_store(&f.ended, true);
    pthread_join(thread, NULL);
    assert_true(refused > 100); /* it was about them */
    channel_close(&f.c);
}

static void run_once_or_taken_back_once(void **state)
{
    static race r;
    static unsigned char ran[MESSAGES], back[MESSAGES];
    static uint64_t index_of[TERCIO__SLOTS];
    unsigned char bytes[RING];
    pthread_t thread;
    uint64_t random = 23, sent = 0, n_back = 0, n_ran = 0;
    (void)state;
    channel_open(&r.c);
    assert_int_equal(pthread_create(&thread, NULL, work, &r), 0);
    while (sent < MESSAGES) {
        fill(bytes, size_of(sent), sent);
        if (put(&r.c, sent, bytes, size_of(sent))) {
            index_of[(r.c.sender.tail - 1) % TERCIO__SLOTS] = sent;
            sent++;
        } else {
            sched_yield();
        }
        for (uint64_t n = next_random(&random) % 4; n > 0 && r.c.sender.tail > r.c.sender.reclaimed; n--) {
            uint64_t load = r.c.sender.tail - r.c.sender.reclaimed;
            uint64_t sequence = r.c.sender.reclaimed + next_random(&random) % load;
            if (tercio__sender_revoke(&r.c.sender, sequence))
                back[index_of[sequence % TERCIO__SLOTS]]++;
        }
        collect(&r, ran);
    }
    atomic_store(&r.ended, true);
    while (r.c.sender.reclaimed < r.c.sender.tail) {
        collect(&r, ran);
        sched_yield();
    }
    pthread_join(thread, NULL);
    collect(&r, ran);
    assert_false(r.damaged);
    for (size_t i = 0; i < MESSAGES; i++) {
        assert_int_equal(ran[i] + back[i], 1);
        n_ran += ran[i];
        n_back += back[i];
    }
    assert_int_equal(n_ran, r.n_run);
    assert_true(n_back > 0 && n_ran > 0);
    channel_close(&r.c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_room_is_no_room_that_is_known),
        cmocka_unit_test(run_once_or_taken_back_once),
    };
    return cmocka_run_group_tests_name("channel_race", tests, NULL, NULL);
}
