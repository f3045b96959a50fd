/* SPDX-License-Identifier: MIT */
#include "arena_bed.h"
#include "base/forks.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>

/* ---- One block ------------------------------------------------------------------------------------------------- */

static void test_views_see_data_and_keep_their_writes(void **state)
{
    (void)state;
    static const size_t sizes[] = {0, 1, 4032, 4033, 100000, 3 << 20, 9 << 20};
    struct bed bed;
    make(&bed, false);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        size_t size = sizes[i];
        tercio_block block;
        tercio_view view, other;
        assert_int_equal(put(&bed, i, size, TERCIO__BLOCK_PINNED, &block), 0);
        assert_int_equal(block.size, size);
        assert_int_equal(tercio__view_open(bed.file, &block, &view), 0);
        assert_int_equal(view.size, size);
        assert_int_equal((uintptr_t)view.data % 64, 0);
        assert_true(holds(view.data, i, size));
        memset(view.data, 0, size);
        assert_int_equal(tercio__view_open(bed.file, &block, &other), 0);
        assert_true(holds(other.data, i, size));
        assert_true(holds(tercio__arena_data(bed.arena, &block), i, size));
        tercio_give(&view);
        tercio_give(&view); /* twice is once */
        tercio_give(&other);
        assert_int_equal(tercio__view_open(bed.file, &block, &view), 0); /* none of them has returned it */
        assert_true(holds(view.data, i, size));
        tercio_give(&view);
        tercio__arena_reclaim(bed.arena);
        assert_true(in_use(&bed) > size); /* pinned: stays until it is freed */
        tercio__arena_free(bed.arena, &block);
        assert_int_equal(in_use(&bed), 0);
    }
    tercio_give(NULL);
    unmake(&bed);
}

static void test_returned_is_reclaimed(bool heap)
{
    struct bed bed;
    tercio_block first, second, third;
    tercio_view view, kept;
    make(&bed, heap);
    assert_int_equal(put(&bed, 1, 50000, TERCIO__BLOCK_LENT, &first), 0);
    uint64_t one = in_use(&bed);
    assert_int_equal(put(&bed, 2, 50000, TERCIO__BLOCK_LENT, &second), 0);
    assert_int_equal(tercio__view_open(bed.file, &first, &kept), 0);
    assert_int_equal(tercio__view_open(bed.file, &second, &view), 0);
    tercio__arena_reclaim(bed.arena);
    assert_int_equal(in_use(&bed), 2 * one);
    tercio__view_close(&view); /* the oldest is still held: it hides nothing */
    tercio__arena_reclaim(bed.arena);
    assert_int_equal(in_use(&bed), one);
    assert_int_equal(put(&bed, 3, 50000, TERCIO__BLOCK_LENT, &third), 0);
    if (!heap)
        assert_int_equal(third.offset, second.offset); /* committed memory comes first */
    assert_true(holds(kept.data, 1, 50000));
    tercio__view_close(&kept);
    tercio__block_return(bed.file, &third);
    tercio__arena_reclaim(bed.arena);
    assert_int_equal(in_use(&bed), 0);
    unmake(&bed);
}

static void test_returned_in_file(void **state)
{
    (void)state;
    test_returned_is_reclaimed(false);
}

static void test_returned_in_heap(void **state)
{
    (void)state;
    test_returned_is_reclaimed(true);
}

static void test_held_waits_for_its_owner(void **state)
{
    (void)state;
    for (int heap = 0; heap < 2; heap++) {
        struct bed bed;
        tercio_block block, other;
        make(&bed, heap);
        assert_int_equal(put(&bed, 1, 5000, TERCIO__BLOCK_HELD, &block), 0);
        tercio__block_return(bed.file, &block);
        tercio__arena_reclaim(bed.arena);
        assert_true(in_use(&bed) > 0);
        assert_true(holds(tercio__arena_data(bed.arena, &block), 1, 5000));
        tercio__arena_unhold(bed.arena, &block, 1);
        tercio__arena_reclaim(bed.arena);
        assert_int_equal(in_use(&bed), 0);

        assert_int_equal(put(&bed, 1, 5000, TERCIO__BLOCK_HELD, &block), 0);
        assert_int_equal(put(&bed, 2, 5000, TERCIO__BLOCK_HELD, &other), 0);
        tercio__arena_unhold(bed.arena, &block, 7);
        tercio__arena_unhold(bed.arena, &other, 8);
        tercio__arena_reap(bed.arena, 7); /* what was lent to the dead goes, and nothing else */
        assert_true(holds(tercio__arena_data(bed.arena, &other), 2, 5000));
        tercio__arena_reap(bed.arena, 8);
        assert_int_equal(in_use(&bed), 0);
        unmake(&bed);
    }
}

static void test_pieces_and_filling_in_place(void **state)
{
    (void)state;
    for (int heap = 0; heap < 2; heap++) {
        struct bed bed;
        tercio_block block;
        tercio_view view;
        void *data;
        make(&bed, heap);
        const tercio_bytes pieces[] = {{"one", 3}, {NULL, 0}, {"two", 3}, {"three", 6}};
        assert_int_equal(tercio__arena_putv(bed.arena, pieces, 4, TERCIO__BLOCK_LENT, &block), 0);
        assert_int_equal(tercio__view_open(bed.file, &block, &view), 0);
        assert_string_equal(view.data, "onetwothree");
        tercio__view_close(&view);
        assert_int_equal(tercio__arena_putv(bed.arena, NULL, 0, TERCIO__BLOCK_LENT, &block), 0);
        assert_int_equal(block.size, 0);
        tercio__arena_free(bed.arena, &block);

        assert_int_equal(tercio__arena_alloc(bed.arena, 2 * MIB, TERCIO__BLOCK_LENT, &block, &data), 0);
        memset(data, 'x', 2 * MIB);
        assert_int_equal(tercio__view_open(bed.file, &block, &view), 0);
        assert_memory_equal(view.data, data, 2 * MIB);
        tercio__view_close(&view);
        assert_int_equal(tercio__arena_alloc(bed.arena, SIZE_MAX, TERCIO__BLOCK_LENT, &block, &data), TERCIO_ENOMEM);
        unmake(&bed);
    }
}

static void test_hostile_descriptors(void **state)
{
    (void)state;
    struct bed bed;
    tercio_block good;
    tercio_view view;
    uint64_t page = tercio__page_size();
    make(&bed, false);
    assert_int_equal(put(&bed, 1, 5000, TERCIO__BLOCK_LENT, &good), 0);
    const tercio_block bad[] = {
        {good.offset + 1, 10},
        {good.offset + page, 10},
        {good.offset + 1000 * MIB, 10},
        {good.offset, 5001},
        {good.offset, 1u << 30},
        {good.offset, UINT64_MAX},
        {good.offset, UINT64_MAX - 64},
        {UINT64_MAX - page + 1, 10},
        {UINT64_MAX, UINT64_MAX},
        {(uint64_t)INT64_MAX + 1, 10},
        {0, 10},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(tercio__view_open(bed.file, &bad[i], &view), TERCIO_EPROTOCOL);
        assert_null(view.data);
        tercio__view_close(&view);
        tercio__block_return(bed.file, &bad[i]);
    }
    tercio__arena_reclaim(bed.arena);
    assert_true(in_use(&bed) > 0);
    assert_true(holds(tercio__arena_data(bed.arena, &good), 1, 5000));

    /* Heads that no owner wrote. */
    int fd = tercio__file_fd(bed.file);
    tercio__block_head head = {.magic = 1, .size = 10};
    tercio_block forged = {good.offset + 2 * page, 10};
    atomic_init(&head.state, TERCIO__BLOCK_LENT);
    assert_int_equal(pwrite(fd, &head, sizeof head, (off_t)forged.offset), sizeof head);
    assert_int_equal(tercio__view_open(bed.file, &forged, &view), TERCIO_EPROTOCOL);
    assert_int_equal(pread(fd, &head, sizeof head, (off_t)good.offset), sizeof head);
    head.size = UINT64_MAX;
    assert_int_equal(pwrite(fd, &head, sizeof head, (off_t)forged.offset), sizeof head);
    assert_int_equal(tercio__view_open(bed.file, &forged, &view), 0); /* as small as it says it is well-formed */
    tercio__view_close(&view);
    assert_int_equal(pwrite(fd, &head, sizeof head, (off_t)forged.offset), sizeof head);
    for (int shift = 13; shift < 64; shift++) {
        forged.size = UINT64_C(1) << shift;
        assert_int_equal(tercio__view_open(bed.file, &forged, &view), TERCIO_EPROTOCOL);
    }

    /* What was returned, or freed, can't be opened once more. */
    assert_int_equal(tercio__view_open(bed.file, &good, &view), 0);
    tercio__view_close(&view);
    assert_int_equal(tercio__view_open(bed.file, &good, &view), TERCIO_EPROTOCOL);
    tercio__arena_free(bed.arena, &good);
    assert_int_equal(tercio__view_open(bed.file, &good, &view), TERCIO_EPROTOCOL);
    unmake(&bed);
}

/* ---- Lifetimes ------------------------------------------------------------------------------------------------- */

static void test_view_outlives_everything(void **state)
{
    (void)state;
    for (int heap = 0; heap < 2; heap++) {
        struct bed bed;
        tercio_block block, unseen;
        tercio_view view, late;
        make(&bed, heap);
        int fd = tercio__file_fd(bed.file);
        assert_int_equal(put(&bed, 5, 70000, TERCIO__BLOCK_LENT, &block), 0);
        assert_int_equal(put(&bed, 6, 70000, TERCIO__BLOCK_LENT, &unseen), 0);
        assert_int_equal(tercio__view_open(bed.file, &block, &view), 0);
        tercio__file_ref(bed.file);
        tercio__file_retire(bed.file);
        tercio__file_retire(bed.file);
        tercio__arena_delete(bed.arena);
        if (!heap)
            assert_int_equal(fcntl(fd, F_GETFD), -1); /* not held open by a view */
        /* Another file that has the number by now isn't written to. */
        int stranger = heap ? -1 : open("/dev/null", O_RDONLY | O_CLOEXEC);
        if (!heap) {
            assert_int_equal(stranger, fd);
            assert_int_equal(tercio__view_open(bed.file, &unseen, &late), TERCIO_ECLOSED);
        }
        tercio__file_unref(bed.file);
        tercio__file_unref(bed.file);
        assert_true(holds(view.data, 5, 70000));
        memset(view.data, 1, 70000);
        tercio__view_close(&view);
        if (!heap) {
            assert_int_equal(fcntl(stranger, F_GETFD), FD_CLOEXEC);
            close(stranger);
        }
    }
}

static void test_fork_keeps_the_childs_pages(void **state)
{
    (void)state;
    struct bed bed;
    tercio_block block, other;
    tercio_view view;
    int go[2];
    make(&bed, false);
    assert_int_equal(pipe2(go, O_CLOEXEC), 0);
    assert_int_equal(put(&bed, 1, 100000, TERCIO__BLOCK_LENT, &block), 0);
    uint64_t one = in_use(&bed);
    assert_int_equal(tercio__view_open(bed.file, &block, &view), 0);
    const void *segment = tercio__arena_data(bed.arena, &block);
    uint32_t generation = tercio__fork_generation(), forks = tercio__fork_count();
    pid_t pid = fork();
    if (pid == 0) {
        char byte;
        alarm(60);
        close(go[1]);
        CHECK(tercio__fork_generation() != generation);
        CHECK(read(go[0], &byte, 1) == 0); /* the parent has closed its view and used its arena since */
        CHECK(holds(view.data, 1, 100000));
        tercio__view_close(&view);
        /* Where the parent's segment was mapped there is something else by now. */
        void *at = (char *)segment - 64;
        CHECK(mmap(at, tercio__page_size(), PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == at);
        tercio__arena_delete(bed.arena);
        CHECK(msync(at, tercio__page_size(), MS_ASYNC) == 0);
        _exit(0);
    }
    assert_int_equal(tercio__fork_generation(), generation);
    assert_true(tercio__fork_count() != forks);
    tercio__view_close(&view);
    tercio__arena_reclaim(bed.arena);
    assert_int_equal(in_use(&bed), one);
    for (int i = 0; i < 50; i++) {
        assert_int_equal(put(&bed, 9, 100000, TERCIO__BLOCK_LENT, &other), 0);
        tercio__block_return(bed.file, &other);
    }
    /* Nor does the death of an owner take them away. */
    uint32_t n = atomic_load(&bed.n_published);
    assert_int_equal(tercio__file_discard(bed.file, bed.published, n, NULL, 0), 0);
    close(go[0]);
    close(go[1]);
    assert_int_equal(wait_status(pid), 0);

    /* A view that is opened after the fork is like any other. */
    unmake(&bed);
    make(&bed, false);
    assert_int_equal(put(&bed, 2, 100, TERCIO__BLOCK_LENT, &block), 0);
    assert_int_equal(tercio__view_open(bed.file, &block, &view), 0);
    tercio__view_close(&view);
    tercio__arena_reclaim(bed.arena);
    assert_int_equal(in_use(&bed), 0);
    unmake(&bed);
}

static void test_child_doesnt_return_its_parents_views(void **state)
{
    (void)state;
    struct bed bed;
    tercio_block block;
    tercio_view view;
    make(&bed, false);
    assert_int_equal(put(&bed, 1, 100000, TERCIO__BLOCK_LENT, &block), 0);
    assert_int_equal(tercio__view_open(bed.file, &block, &view), 0);
    pid_t pid = fork();
    if (pid == 0) {
        tercio__view_close(&view);
        _exit(0);
    }
    assert_int_equal(wait_status(pid), 0);
    tercio__arena_reclaim(bed.arena);
    assert_true(in_use(&bed) > 0);
    assert_true(holds(view.data, 1, 100000));
    tercio__view_close(&view);
    unmake(&bed);
}

/* ---- Another process owns -------------------------------------------------------------------------------------- */

struct words {
    _Atomic uint64_t end;
    _Atomic uint32_t n;
    tercio__range ranges[TERCIO__SEGMENTS];
};

enum { n_lent = 4, lent_size = 300000 };

static void owner(int fd, int out)
{
    void *memory;
    alarm(60);
    CHECK(tercio__shm_map(fd, 0, tercio__page_size(), TERCIO__MAP_SHARED, &memory) == 0);
    struct words *words = memory;
    tercio__file *file = tercio__file_new(fd);
    tercio__arena *arena = tercio__arena_new(file, &words->end, words->ranges, &words->n);
    for (uint64_t i = 0; i < n_lent; i++) {
        tercio_block block;
        unsigned char *bytes = bytes_of(i, lent_size);
        CHECK(tercio__arena_put(arena, bytes, lent_size, TERCIO__BLOCK_LENT, &block) == 0);
        CHECK(write(out, &block, sizeof block) == (ssize_t)sizeof block);
        free(bytes);
    }
    raise(SIGKILL);
}

static void test_owner_dies(void **state)
{
    (void)state;
    struct bed bed = {0};
    tercio_block blocks[n_lent];
    tercio_view views[2];
    void *memory;
    int fd = tercio__shm_create(), pipes[2];
    uint64_t page = tercio__page_size();
    assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
    assert_int_equal(tercio__shm_reserve(fd, 0, page), 0);
    assert_int_equal(tercio__shm_map(fd, 0, page, TERCIO__MAP_SHARED, &memory), 0);
    struct words *words = memory;
    atomic_store(&words->end, page);
    bed.file = tercio__file_new(fd);
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0)
        owner(dup(fd), pipes[1]);
    assert_int_equal(WTERMSIG(wait_status(pid)), SIGKILL);
    for (int i = 0; i < n_lent; i++)
        assert_int_equal(read(pipes[0], &blocks[i], sizeof *blocks), sizeof *blocks);
    assert_true(atomic_load(&words->n) > 0);

    /* Open: 0, 2. Told and not opened: 1. Never told: 3. */
    assert_int_equal(tercio__view_open(bed.file, &blocks[0], &views[0]), 0);
    assert_int_equal(tercio__view_open(bed.file, &blocks[2], &views[1]), 0);
    uint64_t each = (lent_size + 64 + page - 1) / page * page;
    assert_int_equal(memory_of(&bed), page + n_lent * each);
    assert_int_equal(tercio__file_discard(bed.file, words->ranges, atomic_load(&words->n), &blocks[1], 1), 0);
    assert_int_equal(memory_of(&bed), page + 3 * each);
    assert_true(holds(views[0].data, 0, lent_size));
    assert_true(holds(views[1].data, 2, lent_size));
    tercio__view_close(&views[0]);
    assert_int_equal(memory_of(&bed), page + 2 * each);
    assert_int_equal(tercio__view_open(bed.file, &blocks[3], &views[0]), TERCIO_EPROTOCOL);
    assert_int_equal(tercio__view_open(bed.file, &blocks[1], &views[0]), 0);
    assert_true(holds(views[0].data, 1, lent_size));
    tercio__view_close(&views[0]);
    assert_true(holds(views[1].data, 2, lent_size));
    tercio__view_close(&views[1]);
    assert_int_equal(memory_of(&bed), page);
    tercio__shm_unmap(memory, page);
    tercio__file_unref(bed.file);
    close(pipes[0]);
    close(pipes[1]);
}

/* ---- Running out ----------------------------------------------------------------------------------------------- */

static void beyond_the_file_limit(void)
{
    struct bed bed;
    tercio_block block;
    void *data;
    make(&bed, false);
    struct rlimit limit = {2 * MIB, 2 * MIB};
    CHECK(setrlimit(RLIMIT_FSIZE, &limit) == 0);
    signal(SIGXFSZ, SIG_DFL);
    signal(SIGBUS, SIG_DFL);
    for (int i = 0; i < 3; i++) {
        errno = 0;
        CHECK(put(&bed, 1, 3 * MIB, TERCIO__BLOCK_LENT, &block) == TERCIO_ESYSTEM && errno == EFBIG);
        CHECK(tercio__arena_alloc(bed.arena, 3 * MIB, TERCIO__BLOCK_LENT, &block, &data) == TERCIO_ESYSTEM);
        CHECK(tercio__arena_in_use(bed.arena) == 0 && tercio__arena_held(bed.arena) == 0);
    }
    /* One that fails in the middle leaves nothing of its beginning. */
    static char piece[MIB];
    const tercio_bytes pieces[] = {{piece, MIB}, {piece, MIB}};
    CHECK(tercio__arena_putv(bed.arena, pieces, 2, TERCIO__BLOCK_LENT, &block) == TERCIO_ESYSTEM && errno == EFBIG);
    CHECK(memory_of(&bed) == 0);
    unmake(&bed);
}

static void beyond_the_address_space(void)
{
    struct bed bed;
    tercio_block block, small;
    make(&bed, false);
    unsigned char *bytes = bytes_of(1, 40 * MIB);
    struct rlimit before, limit;
    CHECK(getrlimit(RLIMIT_AS, &before) == 0);
    CHECK(tercio__arena_put(bed.arena, bytes, 1000, TERCIO__BLOCK_LENT, &small) == 0);
    limit = before;
    limit.rlim_cur = 32 * MIB;
    CHECK(setrlimit(RLIMIT_AS, &limit) == 0);
    CHECK(tercio__arena_put(bed.arena, bytes, 40 * MIB, TERCIO__BLOCK_LENT, &block) == TERCIO_ENOMEM);
    CHECK(bed.published[1].size == 0);
    tercio_view view;
    CHECK(tercio__view_open(bed.file, &small, &view) == TERCIO_ENOMEM);
    CHECK(setrlimit(RLIMIT_AS, &before) == 0);
    CHECK(tercio__arena_put(bed.arena, bytes, 40 * MIB, TERCIO__BLOCK_LENT, &block) == 0);
    CHECK(tercio__view_open(bed.file, &block, &view) == 0);
    CHECK(memcmp(view.data, bytes, 40 * MIB) == 0);
    tercio__view_close(&view);
    free(bytes);
    unmake(&bed);
}

static void test_limits_are_errors(void **state)
{
    (void)state;
    in_child(beyond_the_file_limit);
    if (!SANITIZED) /* a sanitizer's own memory is beyond any such limit */
        in_child(beyond_the_address_space);
}

static void test_neighbours_become_one(void **state)
{
    (void)state;
    for (int order = 0; order < 3; order++) {
        enum { n = 10 };
        struct bed bed;
        tercio_block blocks[n], all;
        make(&bed, false);
        for (int i = 0; i < n; i++)
            assert_int_equal(put(&bed, 1, 400000, TERCIO__BLOCK_LENT, &blocks[i]), 0);
        for (int i = 0; i < n; i++)
            tercio__arena_free(bed.arena, &blocks[order == 0 ? i : order == 1 ? n - 1 - i : i * 3 % n]);
        assert_int_equal(put(&bed, 2, 4 * MIB - 64, TERCIO__BLOCK_LENT, &all), 0);
        assert_int_equal(all.offset, blocks[0].offset);
        assert_int_equal(atomic_load(&bed.n_published), 1);
        tercio__arena_free(bed.arena, &all);
        unmake(&bed);
    }
}

static void test_table_of_segments_ends(void **state)
{
    (void)state;
    struct bed bed;
    tercio_block blocks[3];
    make(&bed, false);
    for (uint32_t i = 0; i < TERCIO__SEGMENTS - 2; i++)
        bed.published[i] = (tercio__range){1, 1};
    atomic_store(&bed.n_published, TERCIO__SEGMENTS - 2);
    assert_int_equal(put(&bed, 0, 70 * MIB, TERCIO__BLOCK_LENT, &blocks[0]), 0);
    assert_int_equal(put(&bed, 1, 70 * MIB, TERCIO__BLOCK_LENT, &blocks[1]), 0);
    assert_int_equal(atomic_load(&bed.n_published), TERCIO__SEGMENTS);
    assert_int_equal(put(&bed, 2, 70 * MIB, TERCIO__BLOCK_LENT, &blocks[2]), TERCIO_ENOMEM);
    assert_int_equal(put(&bed, 3, 1 * MIB, TERCIO__BLOCK_LENT, &blocks[2]), 0); /* behind the others */
    tercio__arena_free(bed.arena, &blocks[2]);
    /* One that is empty makes room in the table. */
    uint64_t end = atomic_load(&bed.end);
    tercio__arena_free(bed.arena, &blocks[0]);
    tercio__arena_free(bed.arena, &blocks[1]);
    assert_int_equal(put(&bed, 4, 80 * MIB, TERCIO__BLOCK_LENT, &blocks[2]), 0);
    assert_true(blocks[2].offset >= end);
    unmake(&bed);
}

static void test_free_memory_is_given_back(void **state)
{
    (void)state;
    struct bed bed;
    tercio_block blocks[12];
    make(&bed, false);
    for (int i = 0; i < 12; i++)
        assert_int_equal(put(&bed, 1, 10 * MIB, TERCIO__BLOCK_LENT, &blocks[i]), 0);
    assert_true(memory_of(&bed) >= 120 * MIB);
    assert_int_equal(memory_of(&bed), tercio__arena_held(bed.arena));
    for (int i = 0; i < 12; i++)
        tercio__block_return(bed.file, &blocks[i]);
    for (int i = 0; i < 12; i++)
        tercio__arena_reclaim(bed.arena);
    assert_int_equal(in_use(&bed), 0);
    assert_true(memory_of(&bed) >= 120 * MIB); /* what was in use lately is kept for the next ... */
    for (int i = 0; i < 150; i++) {
        assert_int_equal(put(&bed, 1, 10 * MIB, TERCIO__BLOCK_LENT, &blocks[0]), 0);
        tercio__arena_free(bed.arena, &blocks[0]);
    }
    assert_true(memory_of(&bed) <= 80 * MIB); /* ... but long ago is not lately */
    assert_int_equal(memory_of(&bed), tercio__arena_held(bed.arena));
    for (int i = 0; i < 12; i++)
        assert_int_equal(put(&bed, 1, 10 * MIB, TERCIO__BLOCK_LENT, &blocks[i]), 0);
    for (int i = 1; i < 12; i++)
        tercio__block_return(bed.file, &blocks[i]);
    tercio__arena_trim(bed.arena);
    assert_int_equal(in_use(&bed), 10 * MIB + 4096);
    assert_true(memory_of(&bed) <= 10 * MIB + 4096 + 64 * MIB);
    assert_true(memory_of(&bed) >= 50 * MIB);
    tercio__block_return(bed.file, &blocks[0]);
    assert_int_equal(memory_of(&bed), tercio__arena_held(bed.arena));
    for (int i = 0; i < 3; i++) {
        tercio_view view;
        assert_int_equal(put(&bed, (uint64_t)i, 11 * MIB, TERCIO__BLOCK_LENT, &blocks[i]), 0);
        assert_int_equal(tercio__view_open(bed.file, &blocks[i], &view), 0);
        assert_true(holds(view.data, (uint64_t)i, 11 * MIB));
        tercio__view_close(&view);
    }
    unmake(&bed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_views_see_data_and_keep_their_writes),
        cmocka_unit_test(test_returned_in_file),
        cmocka_unit_test(test_returned_in_heap),
        cmocka_unit_test(test_held_waits_for_its_owner),
        cmocka_unit_test(test_pieces_and_filling_in_place),
        cmocka_unit_test(test_hostile_descriptors),
        cmocka_unit_test(test_view_outlives_everything),
        cmocka_unit_test(test_fork_keeps_the_childs_pages),
        cmocka_unit_test(test_child_doesnt_return_its_parents_views),
        cmocka_unit_test(test_owner_dies),
        cmocka_unit_test(test_limits_are_errors),
        cmocka_unit_test(test_neighbours_become_one),
        cmocka_unit_test(test_table_of_segments_ends),
        cmocka_unit_test(test_free_memory_is_given_back),
    };
    make_noise();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
