/* SPDX-License-Identifier: MIT
 *
 * Messages of a binding: what tercio_push answers when the look that it takes at the workers changes what it may do, and
 * how large a message may be. How a worker is started makes no difference to it: forked ones and threads will do.
 */
#include "battery.h"

enum { GOOD, BAD, HELD };

static struct {
    _Atomic uint32_t answered, released; /* released: items of kind BAD and HELD end */
} * place;                               /* shared with forked workers */

static int run_one(void *user, tercio_call *call, const tercio_chunk *chunk)
{
    bool is_bad = *(const unsigned char *)chunk->message.data == BAD;
    int rest = 0;
    (void)user;
    while (*(const unsigned char *)chunk->message.data != GOOD && !atomic_load(&place->released))
        sched_yield();
    for (uint32_t i = chunk->skip; i < chunk->n_items && rest == 0; i++)
        rest = tercio_commit(call, is_bad ? TERCIO_EFAILED : 0, 0, &chunk->message, 1);
    atomic_fetch_add(&place->answered, 1);
    return rest;
}

static const tercio_host host = {.size = sizeof host, .run = run_one};

static tercio_pool *open_one(void **state)
{
    tercio_options options = {
        .size = sizeof options, .host = &host, .method = method_of(state), .n_workers = 1, .threads_at_fork = true};
    tercio_pool *pool;
    atomic_store(&place->answered, 0);
    assert_int_equal(tercio_open(&pool, &options), 0);
    return pool;
}

static int push(tercio_run *run, unsigned char kind, uint64_t index, uint32_t n_items, bool wait_in_pool)
{
    tercio_bytes part = {&kind, 1};
    tercio_message message = {.size = sizeof message, .index = index, .n_items = n_items, .parts = &part, .n_parts = 1};
    return tercio_push(run, &message, wait_in_pool);
}

static void wait_for_answers(uint32_t n)
{
    uint64_t until = nanoseconds() + BOUND_SECONDS / 2 * UINT64_C(1000000000);
    while (atomic_load(&place->answered) < n && nanoseconds() < until)
        sched_yield();
    assert_true(atomic_load(&place->answered) >= n);
}

/* The worker has failed an item, and nobody has looked: the run ends with that look, so nothing may follow. */
static void a_look_that_stops_the_run(void **state)
{
    for (int wait_in_pool = 0; wait_in_pool < 2; wait_in_pool++) {
        tercio_pool *pool = open_one(state);
        /* in turn: a worker gets two before it has done one */
        tercio_map_options options = {
            .size = sizeof options, .stop_on_error = true, .unordered = true, .in_turn = true};
        tercio_result result = {.size = sizeof result};
        tercio_run *run;
        assert_int_equal(tercio_run_open(pool, NULL, 0, &options, &run), 0);
        atomic_store(&place->released, 0);
        assert_int_equal(push(run, BAD, 0, 1, false), 1);
        assert_int_equal(push(run, GOOD, 1, 1, false), 1);
        atomic_store(&place->released, 1);
        wait_for_answers(1);
        assert_int_equal(push(run, GOOD, 2, 1, wait_in_pool), TERCIO_ECANCELED);
        assert_int_equal(tercio_next(run, BOUND_SECONDS / 2, &result), 1);
        assert_int_equal(result.status, TERCIO_EFAILED);
        tercio_release(run, &result);
        int more;
        while ((more = tercio_next(run, BOUND_SECONDS / 2, &result)) == 1) {
            assert_true(result.index < 2);
            tercio_release(run, &result);
        }
        assert_int_equal(more, 0);
        assert_true(atomic_load(&place->answered) <= 2);
        tercio_run_close(run);
        tercio_close(pool);
    }
}

static void room_for_more_than_an_int(void **state)
{
    static const size_t bounds[] = {0, 5, (size_t)INT32_MAX + 1, (size_t)UINT32_MAX + 2, SIZE_MAX};
    static const int rooms[] = {INT32_MAX, 4, INT32_MAX, INT32_MAX, INT32_MAX};
    for (size_t i = 0; i < sizeof bounds / sizeof *bounds; i++) {
        tercio_pool *pool = open_one(state); /* a fresh one: the room of a slot comes back a moment after its answer */
        tercio_map_options options = {
            .size = sizeof options, .max_active = bounds[i], .unordered = true, .in_turn = true};
        tercio_result result = {.size = sizeof result};
        tercio_run *run;
        assert_int_equal(tercio_run_open(pool, NULL, 0, &options, &run), 0);
        assert_int_equal(tercio_run_room(run), INT32_MAX);
        atomic_store(&place->released, 0);
        assert_int_equal(push(run, HELD, 0, 1, false), 1);
        int room = tercio_run_room(run);
        atomic_store(&place->released, 1);
        assert_int_equal(room, rooms[i]);
        assert_int_equal(tercio_next(run, BOUND_SECONDS / 2, &result), 1);
        tercio_release(run, &result);
        tercio_run_close(run);
        tercio_close(pool);
    }
}

static const battery_test tests[] = {
    BATTERY_TEST(a_look_that_stops_the_run),
    BATTERY_TEST(room_for_more_than_an_int),
};

int main(int argc, char **argv)
{
    place = shared_memory(sizeof *place);
    return run_battery_of_two("push", tests, sizeof tests / sizeof *tests, argc > 1 ? argv[1] : NULL);
}
