/* SPDX-License-Identifier: MIT
 *
 * The C face: streams, submits, cancelling, and structs that grow, under every start method.
 */
#include "face_tasks.h"

/* ---- Sources of inputs ---------------------------------------------------------------------------------------------- */

typedef struct {
    int64_t next, n, asked;
    int end;     /* what is returned after the n-th */
    size_t size; /* of items of ECHO; 0: an int64_t */
    unsigned char bytes[1 << 16];
    tercio_run *run;
    int64_t given, most; /* most that were under way at any time */
} source;

static int from_source(void *user, tercio_bytes *input)
{
    source *self = user;
    if (self->next - self->given > self->most)
        self->most = self->next - self->given;
    if (self->next == self->n)
        return self->end;
    memset(self->bytes, 0, sizeof self->bytes);
    memcpy(self->bytes, &self->next, sizeof self->next);
    input->data = self->bytes;
    input->size = sizeof self->next;
    if (self->size) /* of any length, some large */
        input->size = sizeof self->next + (size_t)(self->next * 977) % self->size;
    self->next++;
    return 1;
}

static int64_t number_in(tercio_bytes bytes)
{
    int64_t number;
    assert_true(bytes.size >= sizeof number);
    memcpy(&number, bytes.data, sizeof number);
    return number;
}

static tercio_run *stream(tercio_pool *pool, unsigned task, source *from, const tercio_map_options *options)
{
    tercio_run *run;
    assert_int_equal(tercio_stream(pool, task, from_source, from, options, &run), 0);
    return run;
}

/* ---- Streams -------------------------------------------------------------------------------------------------------- */

static void ordered_comes_in_order(void **state)
{
    static source from;
    tercio_pool *pool = open_pool(state, 3);
    for (size_t chunk = 0; chunk < 30; chunk += 13) {
        tercio_map_options options = {.size = sizeof options, .chunk = chunk};
        tercio_result result = {.size = sizeof result};
        from = (source){.n = 5000};
        tercio_run *run = stream(pool, DOUBLE, &from, &options);
        for (int64_t i = 0; i < from.n; i++) {
            assert_int_equal(tercio_next(run, -1, &result), 1);
            assert_int_equal(result.index, i);
            assert_int_equal(result.status, 0);
            assert_int_equal(number_in(result.out), 2 * i);
            tercio_release(run, &result);
        }
        assert_int_equal(tercio_next(run, -1, &result), 0);
        assert_int_equal(tercio_next(run, -1, &result), 0);
        tercio_run_close(run);
    }
    tercio_close(pool);
}

static void unordered_comes_once_each(void **state)
{
    static source from;
    static unsigned char seen[5000];
    tercio_pool *pool = open_pool(state, 3);
    tercio_map_options options = {.size = sizeof options, .chunk = 3, .unordered = true};
    tercio_result result = {.size = sizeof result};
    int more;
    from = (source){.n = 5000};
    memset(seen, 0, sizeof seen);
    tercio_run *run = stream(pool, DOUBLE, &from, &options);
    while ((more = tercio_next(run, -1, &result)) == 1) {
        assert_int_equal(number_in(result.out), 2 * result.index);
        seen[result.index]++;
        tercio_release(run, &result);
    }
    assert_int_equal(more, 0);
    for (int i = 0; i < 5000; i++)
        assert_int_equal(seen[i], 1);
    tercio_run_close(run);
    tercio_close(pool);
}

static void items_of_any_size(void **state)
{
    static source from;
    tercio_pool *pool = open_pool(state, 2);
    for (size_t chunk = 1; chunk < 10; chunk += 4) {
        tercio_map_options options = {.size = sizeof options, .chunk = chunk};
        tercio_result result = {.size = sizeof result}, kept[3] = {{0}};
        int more;
        from = (source){.n = 300, .size = 60000};
        tercio_run *run = stream(pool, ECHO, &from, &options);
        int64_t i = 0;
        while ((more = tercio_next(run, -1, &result)) == 1) {
            assert_int_equal(result.status, 0);
            assert_int_equal(result.out.size, 8 + (size_t)(i * 977) % 60000);
            assert_int_equal(number_in(result.out), i);
            /* A few are kept while others are asked for. */
            tercio_result *oldest = &kept[i % 3];
            if (oldest->size) {
                assert_int_equal(number_in(oldest->out), i - 3);
                tercio_release(run, oldest);
            }
            *oldest = result;
            i++;
        }
        assert_int_equal(more, 0);
        assert_int_equal(i, 300);
        tercio_run_close(run); /* gives back what was not released */
    }
    tercio_close(pool);
}

static void failing_source(void **state)
{
    static source from;
    tercio_pool *pool = open_pool(state, 2);
    tercio_map_options options = {.size = sizeof options, .chunk = 4};
    tercio_result result = {.size = sizeof result};
    from = (source){.n = 101, .end = -1234};
    tercio_run *run = stream(pool, DOUBLE, &from, &options);
    for (int i = 0; i < 101; i++) {
        assert_int_equal(tercio_next(run, -1, &result), 1);
        assert_int_equal(result.index, i);
        tercio_release(run, &result);
    }
    assert_int_equal(tercio_next(run, -1, &result), -1234);
    assert_int_equal(tercio_next(run, -1, &result), -1234);
    tercio_run_close(run);
    tercio_close(pool);
}

static int next_nowhere(void *user, tercio_bytes *input)
{
    (void)user;
    *input = (tercio_bytes){NULL, 8};
    return 1;
}

static void a_source_without_bytes(void **state)
{
    tercio_pool *pool = open_pool(state, 1);
    tercio_result result = {.size = sizeof result};
    tercio_run *run;
    assert_int_equal(tercio_stream(pool, DOUBLE, next_nowhere, NULL, NULL, &run), 0);
    assert_int_equal(tercio_next(run, -1, &result), TERCIO_EINVAL);
    tercio_run_close(run);
    assert_int_equal(tercio_submit(pool, DOUBLE, (tercio_bytes){NULL, 8}, NULL, &run), TERCIO_EINVAL);
    tercio_close(pool);
}

/* More than fits any clock is as good as none; less than nothing, and what is no number, is refused. */
static void limits_beyond_all_measure(void **state)
{
    tercio_options options = face_options(method_of(state), 1);
    tercio_pool *pool;
    int64_t in = 4, out = 0;
    options.grace = options.init_timeout = options.exit_timeout = 1e300;
    assert_int_equal(tercio_open(&pool, &options), 0);
    tercio_map_options limit = {.size = sizeof limit, .timeout = 1e300};
    assert_int_equal(tercio_map(pool, DOUBLE, &in, sizeof in, 1, &out, &limit, NULL), 0);
    assert_int_equal(out, 8);
    limit.timeout = -1;
    assert_int_equal(tercio_map(pool, DOUBLE, &in, sizeof in, 1, &out, &limit, NULL), TERCIO_EINVAL);
    limit.timeout = strtod("nan", NULL);
    assert_int_equal(tercio_map(pool, DOUBLE, &in, sizeof in, 1, &out, &limit, NULL), TERCIO_EINVAL);
    tercio_close(pool);
}

static void empty_source(void **state)
{
    static source from;
    tercio_pool *pool = open_pool(state, 2);
    tercio_result result = {.size = sizeof result};
    from = (source){.n = 0};
    tercio_run *run = stream(pool, DOUBLE, &from, NULL);
    assert_int_equal(tercio_next(run, 0, &result), 0);
    tercio_run_close(run);
    tercio_close(pool);
}

static void no_further_than_max_active(void **state)
{
    static source from;
    tercio_pool *pool = open_pool(state, 2);
    for (size_t active = 1; active < 40; active = active * 3 + 1) {
        tercio_map_options options = {.size = sizeof options, .max_active = active, .chunk = 2};
        tercio_result result = {.size = sizeof result};
        from = (source){.n = 400};
        tercio_run *run = stream(pool, DOUBLE, &from, &options);
        while (tercio_next(run, -1, &result) == 1) {
            from.given++;
            tercio_release(run, &result);
        }
        assert_int_equal(from.given, 400);
        assert_true(from.most <= (int64_t)active);
        tercio_run_close(run);
    }
    tercio_close(pool);
}

static void errors_in_a_stream(void **state)
{
    static source from;
    tercio_pool *pool = open_pool(state, 2);
    tercio_result result = {.size = sizeof result};
    char expected[64];
    from = (source){.n = 100};
    tercio_run *run = stream(pool, FAIL_THIRDS, &from, NULL);
    for (int i = 0; i < 100; i++) {
        assert_int_equal(tercio_next(run, -1, &result), 1);
        assert_int_equal(result.index, i);
        assert_int_equal(result.status, i % 3 == 2 ? TERCIO_EFAILED : 0);
        assert_int_equal(result.code, i % 3 == 2 ? 7 : 0);
        (void)snprintf(expected, sizeof expected, i % 3 == 2 ? "%d is no good" : "", i);
        assert_string_equal(result.message, expected);
        tercio_release(run, &result);
    }
    assert_int_equal(tercio_next(run, -1, &result), 0);
    tercio_run_close(run);
    tercio_close(pool);
}

static void stream_stops_on_error(void **state)
{
    static source from;
    tercio_pool *pool = open_pool(state, 2);
    for (int unordered = 0; unordered < 2; unordered++) {
        tercio_map_options options = {.size = sizeof options, .stop_on_error = true, .unordered = unordered};
        tercio_result result = {.size = sizeof result};
        int more, given = 0, failed = 0;
        from = (source){.n = 1000000};
        tercio_run *run = stream(pool, FAIL_THIRDS, &from, &options);
        while ((more = tercio_next(run, -1, &result)) == 1) {
            given++;
            failed += result.status != 0;
            tercio_release(run, &result);
        }
        assert_int_equal(more, 0);
        assert_true(failed >= 1);
        assert_true(given < 100000);
        tercio_run_close(run);
    }
    tercio_close(pool);
}

static void deaths_in_a_stream(void **state)
{
    static source from;
    skip_threads(state);
    tercio_pool *pool = open_pool(state, 2);
    tercio_map_options options = {.size = sizeof options, .chunk = 5};
    tercio_result result = {.size = sizeof result};
    from = (source){.n = 50};
    tercio_run *run = stream(pool, DIE, &from, &options); /* items 1, 2 and 3 say how */
    for (int i = 0; i < 50; i++) {
        assert_int_equal(tercio_next(run, -1, &result), 1);
        assert_int_equal(result.index, i);
        assert_int_equal(result.status, i >= 1 && i <= 3 ? TERCIO_EDIED : 0);
        if (i == 1)
            assert_int_equal(result.signal, SIGKILL);
        if (i == 2)
            assert_int_equal(result.code, 9);
        if (i == 3)
            assert_int_equal(result.signal, SIGABRT);
        tercio_release(run, &result);
    }
    assert_int_equal(tercio_next(run, -1, &result), 0);
    tercio_run_close(run);
    tercio_close(pool);
}

static void closed_in_the_middle(void **state)
{
    static source from;
    tercio_pool *pool = open_pool(state, 2);
    for (int taken = 0; taken < 40; taken += 13) {
        tercio_map_options options = {.size = sizeof options, .unordered = taken == 13};
        tercio_result result = {.size = sizeof result};
        from = (source){.n = INT64_MAX, .size = 40000};
        tercio_run *run = stream(pool, ECHO, &from, &options);
        for (int i = 0; i < taken; i++)
            assert_int_equal(tercio_next(run, -1, &result), 1);
        tercio_run_close(run);
    }
    tercio_close(pool);
}

static void event_loop(void **state)
{
    static source from;
    tercio_pool *pool = open_pool(state, 2);
    tercio_result result = {.size = sizeof result};
    int more, given = 0;
    from = (source){.n = 2000};
    tercio_run *run = stream(pool, DOUBLE, &from, NULL);
    struct pollfd ready = {.fd = tercio_run_fd(run), .events = POLLIN};
    assert_true(ready.fd >= 0);
    for (;;) {
        while ((more = tercio_next(run, 0, &result)) == 1) {
            assert_int_equal(result.index, given++);
            tercio_release(run, &result);
        }
        if (more == 0)
            break;
        assert_int_equal(more, TERCIO_EAGAIN);
        assert_int_equal(poll(&ready, 1, 30000), 1);
    }
    assert_int_equal(given, 2000);
    tercio_run_close(run);
    tercio_close(pool);
}

/* ---- Submits -------------------------------------------------------------------------------------------------------- */

static void submits(void **state)
{
    enum { N = 700 };
    static tercio_run *runs[N];
    tercio_pool *pool = open_pool(state, 2);
    tercio_result result = {.size = sizeof result};
    static char text[30000];
    for (int i = 0; i < N; i++) {
        memset(text, 'a' + i % 26, sizeof text);
        tercio_bytes input = {text, (size_t)(i % 50 == 7 ? 30000 : i)};
        assert_int_equal(tercio_submit(pool, ECHO, input, NULL, &runs[i]), 0);
    }
    for (int i = N; i-- > 0;) {
        assert_int_equal(tercio_next(runs[i], -1, &result), 1);
        assert_int_equal(result.status, 0);
        assert_int_equal(result.index, 0);
        assert_int_equal(result.out.size, i % 50 == 7 ? 30000 : i);
        if (result.out.size)
            assert_int_equal(((const char *)result.out.data)[result.out.size - 1], 'a' + i % 26);
        tercio_release(runs[i], &result);
        assert_int_equal(tercio_next(runs[i], -1, &result), 0);
        tercio_run_close(runs[i]);
    }
    tercio_close(pool);
}

static void cancel_what_is_queued(void **state)
{
    tercio_pool *pool = open_pool(state, 1);
    tercio_result result = {.size = sizeof result};
    tercio_run *running, *queued;
    int64_t number = 5;
    signpost post;
    signpost_open(&post);
    assert_int_equal(tercio_submit(pool, BLOCK, signpost_input(&post), NULL, &running), 0);
    signpost_wait(&post, 1);
    assert_int_equal(tercio_submit(pool, DOUBLE, (tercio_bytes){&number, sizeof number}, NULL, &queued), 0);
    assert_int_equal(tercio_next(queued, 0, &result), TERCIO_EAGAIN);
    assert_int_equal(tercio_cancel(queued, 0), 0);
    assert_int_equal(tercio_next(queued, -1, &result), 1); /* though the worker is still busy */
    assert_int_equal(result.status, TERCIO_ECANCELED);
    assert_int_equal(tercio_cancel(queued, 0), TERCIO_EINVAL);
    tercio_release(queued, &result);
    tercio_run_close(queued);
    assert_int_equal(tercio_cancel(running, 0), 0);
    assert_int_equal(tercio_next(running, -1, &result), 1);
    assert_int_equal(result.status, TERCIO_ECANCELED);
    assert_string_equal(result.message, tercio_error_text(TERCIO_ECANCELED));
    tercio_release(running, &result);
    tercio_run_close(running);
    signpost_close(&post);

    assert_int_equal(tercio_submit(pool, DOUBLE, (tercio_bytes){&number, sizeof number}, NULL, &queued), 0);
    assert_int_equal(tercio_next(queued, -1, &result), 1);
    assert_int_equal(number_in(result.out), 10);
    tercio_release(queued, &result);
    tercio_run_close(queued);
    tercio_close(pool);
}

static void cancel_what_does_not_listen(void **state)
{
    skip_threads(state);
    tercio_options options = face_options(method_of(state), 1);
    tercio_pool *pool;
    tercio_result result = {.size = sizeof result};
    tercio_run *run;
    signpost post;
    options.grace = 0.05;
    assert_int_equal(tercio_open(&pool, &options), 0);
    signpost_open(&post);
    assert_int_equal(tercio_submit(pool, STUCK, signpost_input(&post), NULL, &run), 0);
    signpost_wait(&post, 1);
    assert_int_equal(tercio_cancel(run, 0), 0);
    assert_int_equal(tercio_next(run, -1, &result), 1);
    assert_int_equal(result.status, TERCIO_ECANCELED);
    tercio_release(run, &result);
    tercio_run_close(run);
    signpost_close(&post);
    tercio_close(pool);
}

static void a_limit_on_time(void **state)
{
    skip_threads(state); /* a thread is left behind at its limit, with what it holds */
    tercio_pool *pool = open_pool(state, 1);
    tercio_result result = {.size = sizeof result};
    tercio_map_options options = {.size = sizeof options, .timeout = 0.02};
    tercio_run *run;
    signpost post;
    signpost_open(&post);
    assert_int_equal(tercio_submit(pool, BLOCK, signpost_input(&post), &options, &run), 0);
    assert_int_equal(tercio_next(run, -1, &result), 1);
    assert_int_equal(result.status, TERCIO_ETIMEDOUT);
    tercio_release(run, &result);
    tercio_run_close(run);
    signpost_close(&post);
    tercio_close(pool);
}

static void waiting_has_limits(void **state)
{
    tercio_pool *pool = open_pool(state, 1);
    tercio_result result = {.size = sizeof result};
    tercio_run *run;
    signpost post;
    signpost_open(&post);
    assert_int_equal(tercio_submit(pool, BLOCK, signpost_input(&post), NULL, &run), 0);
    signpost_wait(&post, 1);
    assert_int_equal(tercio_next(run, 0.01, &result), TERCIO_EAGAIN);
    tercio_interrupt(pool);
    assert_int_equal(tercio_next(run, -1, &result), TERCIO_EINTERRUPTED);
    assert_int_equal(tercio_next(run, 0.01, &result), TERCIO_EAGAIN); /* once */
    tercio_cancel(run, 0);
    tercio_run_close(run);
    signpost_close(&post);
    tercio_close(pool);
}

/* ---- Programs of another version -------------------------------------------------------------------------------------- */

static void older_programs(void **state)
{
    int64_t in = 4, out = 0;
    struct {
        tercio_options options;
    } old;
    tercio_pool *pool;
    /* What lies behind an older struct is not ours to read. */
    memset(&old, 0xa5, sizeof old);
    memset(&old, 0, offsetof(tercio_options, grace));
    old.options.size = offsetof(tercio_options, grace);
    old.options.table = &face_table;
    old.options.method = method_of(state);
    old.options.n_workers = 1;
    assert_int_equal(tercio_open(&pool, &old.options), 0);

    tercio_map_options map;
    memset(&map, 0xa5, sizeof map);
    map.size = offsetof(tercio_map_options, max_active);
    map.chunk = 1;
    assert_int_equal(tercio_map(pool, DOUBLE, &in, sizeof in, 1, &out, &map, NULL), 0);
    assert_int_equal(out, 8);
    tercio_close(pool);
}

typedef struct {
    tercio_map_options known;
    uint64_t unknown;
} newer_map_options;

typedef struct {
    tercio_result known;
    uint64_t unknown;
} newer_result;

static void newer_programs(void **state)
{
    int64_t in = 5, out = 0;
    tercio_pool *pool = open_pool(state, 1);
    newer_map_options map = {.known.size = sizeof map};
    newer_result result = {.known.size = sizeof result, .unknown = 77};
    assert_int_equal(tercio_map(pool, FAIL_THIRDS, &in, sizeof in, 1, &out, &map.known, &result.known), 1);
    assert_int_equal(result.known.code, 7);
    assert_int_equal(result.unknown, 0); /* a field that this library does not know has its default */
    assert_int_equal(result.known.size, sizeof result);
    map.unknown = 1; /* an option that this library doesn't know can't be honoured */
    assert_int_equal(tercio_map(pool, FAIL_THIRDS, &in, sizeof in, 1, &out, &map.known, NULL), TERCIO_EINVAL);
    tercio_close(pool);
}

int main(int argc, char **argv)
{
    static const face_test tests[] = {
        FACE_TEST(ordered_comes_in_order),
        FACE_TEST(unordered_comes_once_each),
        FACE_TEST(items_of_any_size),
        FACE_TEST(failing_source),
        FACE_TEST(empty_source),
        FACE_TEST(a_source_without_bytes),
        FACE_TEST(limits_beyond_all_measure),
        FACE_TEST(no_further_than_max_active),
        FACE_TEST(errors_in_a_stream),
        FACE_TEST(stream_stops_on_error),
        FACE_TEST(deaths_in_a_stream),
        FACE_TEST(closed_in_the_middle),
        FACE_TEST(event_loop),
        FACE_TEST(submits),
        FACE_TEST(cancel_what_is_queued),
        FACE_TEST(cancel_what_does_not_listen),
        FACE_TEST(a_limit_on_time),
        FACE_TEST(waiting_has_limits),
        FACE_TEST(older_programs),
        FACE_TEST(newer_programs),
    };
    tercio_worker_entry(argc, argv, &face_table);
    return run_for_each_method("face_stream", tests, sizeof tests / sizeof *tests, argc > 1 ? argv[1] : NULL);
}
