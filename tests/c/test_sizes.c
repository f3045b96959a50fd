/* SPDX-License-Identifier: MIT
 *
 * Structs whose size isn't the library's: a program that was built against an older header, or a newer one. Each call
 * that fills a struct gets one that lies in the midst of known bytes, which stay.
 */
#include "face_tasks.h"

/* The smallest tercio_result that ever was. */
#define OLD_RESULT (offsetof(tercio_result, internal) + sizeof(void *))
/* A program that was built against a header with more fields. */
enum { MORE = 64, BEYOND = 128, CANARY = 0xA5 };

/* ---- Bytes around a struct ------------------------------------------------------------------------------------------- */

typedef union {
    size_t size;
    tercio_result result;
    tercio_stats stats;
    tercio_longest longest;
    _Alignas(64) unsigned char bytes[4 * (sizeof(tercio_result) + MORE) + BEYOND];
} guarded;

/* n structs of so many bytes, of which the first has its size. */
static void guard(guarded *memory, size_t size, size_t n)
{
    memset(memory->bytes, CANARY, sizeof memory->bytes);
    memset(memory->bytes, 0, size * n);
    memory->size = size;
}

static void expect_guarded(const guarded *memory, size_t size, size_t n)
{
    for (size_t i = size * n; i < sizeof memory->bytes; i++)
        if (memory->bytes[i] != CANARY) {
            print_error("byte %zu of %zu was written\n", i, size * n);
            fail();
        }
    assert_int_equal(memory->size, size);
}

/* What a newer program has in it, and this library doesn't know. */
static void expect_zeros(const guarded *memory, size_t from, size_t to)
{
    for (size_t i = from; i < to; i++)
        assert_int_equal(memory->bytes[i], 0);
}

static const size_t result_sizes[] = {OLD_RESULT, sizeof(tercio_result), sizeof(tercio_result) + MORE};
static const size_t no_result_sizes[] = {0, sizeof(size_t), OLD_RESULT - 1, 4097, SIZE_MAX};
#define EACH(i, sizes)                   \
    size_t i = 0;                        \
    i < sizeof(sizes) / sizeof *(sizes); \
    i++

/* ---- Results --------------------------------------------------------------------------------------------------------- */

static void the_first_error_of_a_map(void **state)
{
    tercio_pool *pool = open_pool(state, 1);
    int64_t in[3] = {1, 2, 3}, out[3];
    guarded memory;
    for (EACH(i, result_sizes)) {
        guard(&memory, result_sizes[i], 1);
        memset(memory.bytes + sizeof(size_t), 0x11, result_sizes[i] - sizeof(size_t));
        assert_int_equal(tercio_map(pool, FAIL_THIRDS, in, 8, 3, out, NULL, &memory.result), 1);
        expect_guarded(&memory, result_sizes[i], 1);
        expect_zeros(&memory, sizeof(tercio_result), result_sizes[i]);
        assert_int_equal(memory.result.code, 7);
    }
    for (EACH(i, no_result_sizes)) {
        guard(&memory, sizeof(tercio_result), 1);
        memory.size = no_result_sizes[i];
        assert_int_equal(tercio_map(pool, FAIL_THIRDS, in, 8, 3, out, NULL, &memory.result), TERCIO_EINVAL);
        expect_zeros(&memory, sizeof(size_t), sizeof(tercio_result));
    }
    tercio_close(pool);
}

static void the_next_result(void **state)
{
    tercio_pool *pool = open_pool(state, 1);
    int64_t number = 21;
    guarded memory;
    for (EACH(i, result_sizes)) {
        tercio_run *run;
        assert_int_equal(tercio_submit(pool, DOUBLE, (tercio_bytes){&number, 8}, NULL, &run), 0);
        for (EACH(k, no_result_sizes)) {
            guard(&memory, sizeof(tercio_result), 1);
            memory.size = no_result_sizes[k];
            assert_int_equal(tercio_next(run, -1, &memory.result), TERCIO_EINVAL);
            expect_zeros(&memory, sizeof(size_t), sizeof(tercio_result));
        }
        guard(&memory, result_sizes[i], 1);
        assert_int_equal(tercio_next(run, -1, &memory.result), 1);
        expect_guarded(&memory, result_sizes[i], 1);
        assert_int_equal(*(const int64_t *)memory.result.out.data, 42);
        tercio_release(run, &memory.result);
        expect_guarded(&memory, result_sizes[i], 1);
        tercio_run_close(run);
    }
    tercio_close(pool);
}

static void the_failure_of_a_pool(void **state)
{
    tercio_pool *pool = open_pool(state, 1);
    int64_t in = 1, out;
    guarded memory;
    guard(&memory, OLD_RESULT, 1);
    assert_int_equal(tercio_failure(pool, &memory.result), 0);
    expect_zeros(&memory, sizeof(size_t), OLD_RESULT);
    tercio_close(pool);

    setenv("FACE_TEST_INIT", "fail", 1);
    pool = open_pool(state, 1);
    unsetenv("FACE_TEST_INIT");
    if (method_of(state) == TERCIO_THREADING)
        setenv("FACE_TEST_INIT", "fail", 1); /* init runs at the first task, in this process */
    assert_int_equal(tercio_map(pool, DOUBLE, &in, 8, 1, &out, NULL, NULL), TERCIO_ESTART);
    unsetenv("FACE_TEST_INIT");
    for (EACH(i, result_sizes)) {
        guard(&memory, result_sizes[i], 1);
        assert_int_equal(tercio_failure(pool, &memory.result), 1);
        expect_guarded(&memory, result_sizes[i], 1);
        assert_int_equal(memory.result.code, 5);
    }
    for (EACH(i, no_result_sizes)) {
        guard(&memory, sizeof(tercio_result), 1);
        memory.size = no_result_sizes[i];
        assert_int_equal(tercio_failure(pool, &memory.result), TERCIO_EINVAL);
        expect_zeros(&memory, sizeof(size_t), sizeof(tercio_result));
    }
    assert_int_equal(tercio_failure(pool, NULL), TERCIO_EINVAL);
    tercio_close(pool);
}

/* ---- Arrays ---------------------------------------------------------------------------------------------------------- */

static void what_each_worker_did(void **state)
{
    static const size_t sizes[] = {sizeof(size_t), offsetof(tercio_stats, start), sizeof(tercio_stats),
                                   sizeof(tercio_stats) + MORE};
    tercio_pool *pool = open_pool(state, 2);
    guarded memory;
    for (EACH(i, sizes)) {
        guard(&memory, sizes[i], 2);
        memset(memory.bytes + sizes[i], 0x11, sizes[i]); /* only the first needs its size */
        assert_int_equal(tercio_get_stats(pool, &memory.stats, 2), 2);
        expect_guarded(&memory, sizes[i], 2);
        assert_memory_equal(memory.bytes + sizes[i], &sizes[i], sizeof(size_t));
        expect_zeros(&memory, sizeof(tercio_stats), sizes[i]);
        if (sizes[i] > sizeof(tercio_stats))
            expect_zeros(&memory, sizes[i] + sizeof(tercio_stats), 2 * sizes[i]);
    }
    guard(&memory, sizeof(tercio_stats), 2);
    for (size_t size = 0; size < sizeof(size_t); size++) {
        memory.size = size;
        assert_int_equal(tercio_get_stats(pool, &memory.stats, 2), TERCIO_EINVAL);
    }
    memory.size = SIZE_MAX;
    assert_int_equal(tercio_get_stats(pool, &memory.stats, 2), TERCIO_EINVAL);
    tercio_close(pool);
}

static void what_took_long(void **state)
{
    static const size_t sizes[] = {sizeof(size_t), offsetof(tercio_longest, text), sizeof(tercio_longest),
                                   sizeof(tercio_longest) + MORE};
    tercio_options options = face_options(method_of(state), 1);
    tercio_pool *pool;
    int64_t in[2] = {1, 2}, out[2];
    guarded memory;
    options.observe = true;
    assert_int_equal(tercio_open(&pool, &options), 0);
    assert_int_equal(tercio_map(pool, DOUBLE, in, 8, 2, out, NULL, NULL), 0);
    for (EACH(i, sizes)) {
        guard(&memory, sizes[i], 2);
        int n = tercio_get_longest(pool, 0, &memory.longest, 2);
        assert_true(n >= 1 && n <= 2);
        expect_guarded(&memory, sizes[i], 2);
        assert_memory_equal(memory.bytes + (size_t)(n - 1) * sizes[i], &sizes[i], sizeof(size_t));
    }
    guard(&memory, sizeof(tercio_longest), 2);
    for (size_t size = 0; size < sizeof(size_t); size++) {
        memory.size = size;
        assert_int_equal(tercio_get_longest(pool, 0, &memory.longest, 2), TERCIO_EINVAL);
    }
    tercio_close(pool);
}

/* ---- What the library reads -------------------------------------------------------------------------------------------- */

static int answer_one(void *user, tercio_call *call, const tercio_chunk *chunk)
{
    (void)user;
    return tercio_commit(call, 0, 0, &chunk->message, 1);
}

static const tercio_host host = {.size = sizeof host, .run = answer_one};

static int open_with_host(void **state, const tercio_host *given, tercio_pool **pool)
{
    tercio_options options = {
        .size = sizeof options, .method = method_of(state), .n_workers = 1, .host = given, .threads_at_fork = true};
    return tercio_open(pool, &options);
}

static int push(tercio_run *run, size_t size, uint64_t index, unsigned char beyond)
{
    struct {
        tercio_message message;
        unsigned char more[MORE];
    } larger = {.message = {.index = index, .n_items = 1, .n_parts = 1}};
    tercio_bytes part = {"words", 5};
    larger.message.size = size;
    larger.message.parts = &part;
    larger.more[MORE - 1] = beyond;
    return tercio_push(run, &larger.message, true);
}

/* The face for bindings is for processes that are forked, or threads: fresh ones need a program of the binding's own. */
static void a_binding(void **state)
{
    if (method_of(state) == TERCIO_SPAWN || method_of(state) == TERCIO_FORKSERVER)
        skip();
    struct {
        tercio_host host;
        unsigned char more[MORE];
    } other = {.host = host};
    const size_t describe = offsetof(tercio_host, describe);
    const size_t hosts[] = {describe, sizeof(tercio_host), sizeof other}, no_hosts[] = {0, describe - 1, 4097};
    const size_t whole = sizeof(tercio_message), least = offsetof(tercio_message, attended);
    guarded memory;
    tercio_pool *pool;
    tercio_run *run;

    for (EACH(i, no_hosts)) {
        other.host.size = no_hosts[i];
        assert_int_equal(open_with_host(state, &other.host, &pool), TERCIO_EINVAL);
    }
    other.host.size = sizeof other;
    other.more[0] = 1;
    assert_int_equal(open_with_host(state, &other.host, &pool), TERCIO_EINVAL);
    other.more[0] = 0;
    for (EACH(i, hosts)) {
        other.host.size = hosts[i];
        assert_int_equal(open_with_host(state, &other.host, &pool), 0);
        assert_int_equal(tercio_run_open(pool, NULL, 0, NULL, &run), 0);
        assert_int_equal(push(run, 0, 0, 0), TERCIO_EINVAL);
        assert_int_equal(push(run, least - 1, 0, 0), TERCIO_EINVAL);
        assert_int_equal(push(run, whole + MORE, 0, 1), TERCIO_EINVAL);
        assert_int_equal(tercio_push(run, NULL, true), TERCIO_EINVAL);
        assert_int_equal(push(run, least, 0, 0), 1);
        assert_int_equal(push(run, whole + MORE, 1, 0), 1);
        assert_int_equal(push(run, whole, 2, 0), 1);
        for (EACH(k, result_sizes)) {
            guard(&memory, result_sizes[k], 1);
            assert_int_equal(tercio_next(run, -1, &memory.result), 1);
            expect_guarded(&memory, result_sizes[k], 1);
            assert_int_equal(memory.result.out.size, 5);
            tercio_release(run, &memory.result);
        }
        for (EACH(k, no_result_sizes)) {
            guard(&memory, sizeof(tercio_result), 1);
            memory.size = no_result_sizes[k];
            assert_int_equal(tercio_next(run, 0, &memory.result), TERCIO_EINVAL);
        }
        tercio_run_close(run);
        tercio_close(pool);
    }
}

/* A result that can't say of how many items it is can't be one of several. */
static void rows_need_their_number(void **state)
{
    if (method_of(state) == TERCIO_SPAWN || method_of(state) == TERCIO_FORKSERVER)
        skip();
    tercio_map_options options = {.size = sizeof options, .rows = true};
    tercio_pool *pool;
    tercio_run *run;
    guarded memory;
    assert_int_equal(open_with_host(state, &host, &pool), 0);
    assert_int_equal(tercio_run_open(pool, NULL, 0, &options, &run), 0);
    guard(&memory, OLD_RESULT, 1);
    assert_int_equal(tercio_next(run, 0, &memory.result), TERCIO_EINVAL);
    guard(&memory, sizeof(tercio_result), 1);
    assert_int_equal(tercio_next(run, 0, &memory.result), TERCIO_EAGAIN);
    tercio_run_close(run);
    tercio_close(pool);
}

static void tables(void **state)
{
    struct {
        tercio_table table;
        unsigned char more[MORE];
    } other = {.table = face_table};
    tercio_options options = face_options(method_of(state), 1);
    tercio_pool *pool;
    options.table = &other.table;
    other.table.size = sizeof other;
    assert_int_equal(tercio_open(&pool, &options), 0);
    tercio_close(pool);
    other.more[MORE - 1] = 1;
    assert_int_equal(tercio_open(&pool, &options), TERCIO_EINVAL);
    other.more[MORE - 1] = 0;
    other.table.size = offsetof(tercio_table, init); /* before there were init and exit */
    assert_int_equal(tercio_open(&pool, &options), 0);
    tercio_close(pool);
    other.table.size = 4097;
    assert_int_equal(tercio_open(&pool, &options), TERCIO_EINVAL);
}

static void options_of_every_size(void **state)
{
    struct {
        tercio_options options;
        unsigned char more[MORE];
    } other = {.options = face_options(method_of(state), 1)};
    static const size_t bad[] = {0, sizeof(size_t), 4097, SIZE_MAX};
    int64_t in = 4, out = 0;
    tercio_pool *pool;
    for (EACH(i, bad)) {
        other.options.size = bad[i];
        assert_int_equal(tercio_open(&pool, &other.options), TERCIO_EINVAL);
    }
    other.options.size = sizeof other;
    other.more[MORE - 1] = 1;
    assert_int_equal(tercio_open(&pool, &other.options), TERCIO_EINVAL);
    other.more[MORE - 1] = 0;
    assert_int_equal(tercio_open(&pool, &other.options), 0);
    tercio_close(pool);
    other.options.size = offsetof(tercio_options, worker_argv);
    memset((unsigned char *)&other + other.options.size, 0xEE, sizeof other - other.options.size);
    assert_int_equal(tercio_open(&pool, &other.options), 0);

    struct {
        tercio_map_options options;
        unsigned char more[MORE];
    } of_map = {.options = {.size = sizeof(size_t), .chunk = 1}};
    memset((unsigned char *)&of_map + sizeof(size_t), 0xEE, sizeof of_map - sizeof(size_t));
    assert_int_equal(tercio_map(pool, DOUBLE, &in, 8, 1, &out, &of_map.options, NULL), 0);
    assert_int_equal(out, 8);
    of_map.options.size = 0;
    assert_int_equal(tercio_map(pool, DOUBLE, &in, 8, 1, &out, &of_map.options, NULL), TERCIO_EINVAL);
    memset(&of_map, 0, sizeof of_map);
    of_map.options.size = sizeof of_map;
    assert_int_equal(tercio_map(pool, DOUBLE, &in, 8, 1, &out, &of_map.options, NULL), 0);
    of_map.more[0] = 1;
    assert_int_equal(tercio_map(pool, DOUBLE, &in, 8, 1, &out, &of_map.options, NULL), TERCIO_EINVAL);
    tercio_close(pool);
}

int main(int argc, char **argv)
{
    static const face_test tests[] = {
        FACE_TEST(the_first_error_of_a_map), FACE_TEST(the_next_result),       FACE_TEST(the_failure_of_a_pool),
        FACE_TEST(what_each_worker_did),     FACE_TEST(what_took_long),        FACE_TEST(a_binding),
        FACE_TEST(rows_need_their_number),   FACE_TEST(options_of_every_size), FACE_TEST(tables),
    };
    tercio_worker_entry(argc, argv, &face_table);
    return run_for_each_method("sizes", tests, sizeof tests / sizeof *tests, argc > 1 ? argv[1] : NULL);
}
