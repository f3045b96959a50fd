/* SPDX-License-Identifier: MIT
 *
 * Arenas under load: blocks of all sizes and lifetimes at once, borrowers in threads, an end in the middle.
 */
#include "arena_bed.h"

#include <pthread.h>

/* ---- All together ---------------------------------------------------------------------------------------------- */

enum { live = 60, rounds = 6000 };

static uint64_t chance = 88172645463325252u;

static uint64_t any(uint64_t below)
{
    chance ^= chance << 13;
    chance ^= chance >> 7;
    chance ^= chance << 17;
    return chance % below;
}

static void storm(bool heap)
{
    struct {
        tercio_block block;
        tercio_view view;
        uint64_t seed;
        int stage; /* 0 none, 1 lent, 2 seen, 3 pinned, 4 held */
    } them[live];
    struct bed bed;
    memset(them, 0, sizeof them);
    make(&bed, heap);
    for (uint64_t i = 0; i < rounds; i++) {
        size_t k = any(live);
        tercio_block *block = &them[k].block;
        switch (them[k].stage) {
        case 0: {
            size_t size = any(8) ? any(20000) : any(20) ? any(300000) : any(6 * MIB);
            uint32_t how = any(10) ? TERCIO__BLOCK_LENT : any(2) ? TERCIO__BLOCK_PINNED : TERCIO__BLOCK_HELD;
            them[k].seed = i;
            assert_int_equal(put(&bed, i, size, how, block), 0);
            them[k].stage = how == TERCIO__BLOCK_LENT ? 1 : how == TERCIO__BLOCK_PINNED ? 3 : 4;
            break;
        }
        case 1:
            if (any(3)) {
                assert_int_equal(tercio__view_open(bed.file, block, &them[k].view), 0);
                assert_true(holds(them[k].view.data, them[k].seed, block->size));
                them[k].stage = 2;
                break;
            }
            if (any(2))
                tercio__block_return(bed.file, block);
            else
                tercio__arena_free(bed.arena, block);
            them[k].stage = 0;
            break;
        case 2:
            assert_true(holds(them[k].view.data, them[k].seed, block->size));
            memset(them[k].view.data, 0xEE, heap ? 0 : block->size);
            tercio__view_close(&them[k].view);
            them[k].stage = 0;
            break;
        case 3:
            assert_true(holds(tercio__arena_data(bed.arena, block), them[k].seed, block->size));
            tercio__arena_free(bed.arena, block);
            them[k].stage = 0;
            break;
        default:
            assert_true(holds(tercio__arena_data(bed.arena, block), them[k].seed, block->size));
            tercio__arena_unhold(bed.arena, block, 1);
            them[k].stage = 1;
        }
        if (!heap && i % 500 == 0)
            assert_int_equal(memory_of(&bed), tercio__arena_held(bed.arena));
    }
    for (size_t k = 0; k < live; k++) {
        if (them[k].stage == 2)
            tercio__view_close(&them[k].view);
        else if (them[k].stage)
            tercio__arena_free(bed.arena, &them[k].block);
    }
    for (int i = 0; i < live; i++)
        tercio__arena_reclaim(bed.arena);
    assert_int_equal(in_use(&bed), 0);
    unmake(&bed);
}

static void test_storm_in_file(void **state)
{
    (void)state;
    storm(false);
}

static void test_storm_in_heap(void **state)
{
    (void)state;
    storm(true);
}

/* One thread owns, two borrow. */
enum { n_borrowers = 2, queue_size = 16 };

struct queue {
    tercio__file *file;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    tercio_block blocks[queue_size];
    uint64_t seeds[queue_size];
    size_t first, last;
    bool over;
};

static void *borrow(void *argument)
{
    struct queue *queue = argument;
    for (;;) {
        pthread_mutex_lock(&queue->lock);
        while (queue->first == queue->last && !queue->over)
            pthread_cond_wait(&queue->changed, &queue->lock);
        if (queue->first == queue->last) {
            pthread_mutex_unlock(&queue->lock);
            return NULL;
        }
        size_t at = queue->first++ % queue_size;
        tercio_block block = queue->blocks[at];
        uint64_t seed = queue->seeds[at];
        pthread_cond_broadcast(&queue->changed);
        pthread_mutex_unlock(&queue->lock);
        tercio_view view;
        if (tercio__view_open(queue->file, &block, &view) || !holds(view.data, seed, block.size))
            abort();
        tercio__view_close(&view);
    }
}

static void threads(bool heap)
{
    struct bed bed;
    make(&bed, heap);
    struct queue queue = {.file = bed.file, .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
    pthread_t borrowers[n_borrowers];
    for (int i = 0; i < n_borrowers; i++)
        pthread_create(&borrowers[i], NULL, borrow, &queue);
    for (uint64_t i = 0; i < 2000; i++) {
        tercio_block block;
        if (put(&bed, i, any(30000), TERCIO__BLOCK_LENT, &block))
            abort();
        pthread_mutex_lock(&queue.lock);
        while (queue.last - queue.first == queue_size)
            pthread_cond_wait(&queue.changed, &queue.lock);
        queue.blocks[queue.last % queue_size] = block;
        queue.seeds[queue.last % queue_size] = i;
        queue.last++;
        pthread_cond_broadcast(&queue.changed);
        pthread_mutex_unlock(&queue.lock);
    }
    pthread_mutex_lock(&queue.lock);
    queue.over = true;
    pthread_cond_broadcast(&queue.changed);
    pthread_mutex_unlock(&queue.lock);
    for (int i = 0; i < n_borrowers; i++)
        pthread_join(borrowers[i], NULL);
    for (int i = 0; i < 2 * queue_size; i++)
        tercio__arena_reclaim(bed.arena);
    assert_int_equal(in_use(&bed), 0);
    unmake(&bed);
}

static void test_threads_in_file(void **state)
{
    (void)state;
    threads(false);
}

static void test_threads_in_heap(void **state)
{
    (void)state;
    threads(true);
}

static void *close_all(void *argument)
{
    tercio_view *views = argument;
    for (int i = 0; i < 40; i++)
        tercio_give(&views[i]);
    return NULL;
}

static void test_closing_while_the_pool_goes(void **state)
{
    (void)state;
    for (int turn = 0; turn < 20; turn++) {
        struct bed bed;
        tercio_view views[40];
        pthread_t thread;
        make(&bed, false);
        for (int i = 0; i < 40; i++) {
            tercio_block block;
            assert_int_equal(put(&bed, 1, 100, TERCIO__BLOCK_LENT, &block), 0);
            assert_int_equal(tercio__view_open(bed.file, &block, &views[i]), 0);
        }
        pthread_create(&thread, NULL, close_all, views);
        tercio__arena_delete(bed.arena);
        tercio__file_retire(bed.file);
        tercio__file_unref(bed.file);
        pthread_join(thread, NULL);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_storm_in_file),
        cmocka_unit_test(test_storm_in_heap),
        cmocka_unit_test(test_threads_in_file),
        cmocka_unit_test(test_threads_in_heap),
        cmocka_unit_test(test_closing_while_the_pool_goes),
    };
    make_noise();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
