/* SPDX-License-Identifier: MIT
 *
 * The C face: what tasks do to the thread that runs them. They end it, are cancelled in it, and use its stack.
 */
#include "child.h"
#include "face_tasks.h"

#include <pthread.h>
#include <sys/resource.h>

enum { ENDS_THREAD, IS_CANCELLED, TURNS_CANCELLING_ON, USES_STACK, HOW_LARGE, N_ITEMS = 8, VICTIM = 3 };

static int ends_thread(tercio_call *call, tercio_bytes in, void *out)
{
    (void)call;
    memcpy(out, in.data, sizeof(int));
    if (*(const int *)in.data == VICTIM)
        pthread_exit(NULL);
    return 0;
}

static int is_cancelled(tercio_call *call, tercio_bytes in, void *out)
{
    (void)call;
    memcpy(out, in.data, sizeof(int));
    if (*(const int *)in.data == VICTIM) {
        pthread_cancel(pthread_self());
        pthread_testcancel();
    }
    return 0;
}

/* What a task sets stays with that task: the next one isn't cancelled outside of it, nor at any instruction. */
static int turns_cancelling_on(tercio_call *call, tercio_bytes in, void *out)
{
    int state, type;
    (void)call;
    pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, &type);
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state);
    *(int *)out = type == PTHREAD_CANCEL_DEFERRED && state == PTHREAD_CANCEL_ENABLE ? *(const int *)in.data : -1;
    return 0;
}

static int uses_stack(tercio_call *call, tercio_bytes in, void *out)
{
    volatile char large[32 << 20];
    (void)call;
    for (size_t i = 0; i < sizeof large; i += 4096)
        large[i] = 1;
    *(int *)out = *(const int *)in.data + large[4096] - 1;
    return 0;
}

static int how_large(tercio_call *call, tercio_bytes in, void *out)
{
    pthread_attr_t attributes;
    size_t size;
    (void)call;
    (void)in;
    pthread_getattr_np(pthread_self(), &attributes);
    pthread_attr_getstacksize(&attributes, &size);
    pthread_attr_destroy(&attributes);
    *(int *)out = (int)(size >> 10);
    return 0;
}

static const tercio_task thread_tasks[] = {{"ends_thread", ends_thread, sizeof(int)},
                                           {"is_cancelled", is_cancelled, sizeof(int)},
                                           {"turns_cancelling_on", turns_cancelling_on, sizeof(int)},
                                           {"uses_stack", uses_stack, sizeof(int)},
                                           {"how_large", how_large, sizeof(int)}};
static const tercio_table thread_table = {.size = sizeof thread_table,
                                          .task_size = sizeof thread_tasks[0],
                                          .n_tasks = sizeof thread_tasks / sizeof *thread_tasks,
                                          .tasks = thread_tasks};

static tercio_pool *open_threads(void **state, size_t stack_size)
{
    tercio_options options = face_options(method_of(state), 2);
    tercio_pool *pool;
    options.table = &thread_table;
    options.stack_size = stack_size;
    assert_int_equal(tercio_open(&pool, &options), 0);
    return pool;
}

/* Returns: how many items failed; all others have the right answer. */
static int map(tercio_pool *pool, unsigned task, tercio_result *first)
{
    int in[N_ITEMS], out[N_ITEMS], right = 0;
    tercio_map_options options = {.size = sizeof options, .chunk = 2};
    *first = (tercio_result){.size = sizeof *first};
    for (int i = 0; i < N_ITEMS; i++)
        in[i] = i, out[i] = -1;
    int failed = tercio_map(pool, task, in, sizeof *in, N_ITEMS, out, &options, first);
    for (int i = 0; i < N_ITEMS; i++)
        right += out[i] == i;
    assert_int_equal(right + failed, N_ITEMS);
    return failed;
}

static void a_thread_that_ends_costs_its_item(void **state)
{
    tercio_pool *pool = open_threads(state, 0);
    tercio_result first;
    /* GCC's address sanitizer keeps the frames of a cancelled thread poisoned, and finds fault with its own next call. */
    unsigned last = SANITIZED ? ENDS_THREAD : IS_CANCELLED;
    for (unsigned task = ENDS_THREAD; task <= last; task++)
        for (int again = 0; again < 3; again++) {
            assert_int_equal(map(pool, task, &first), 1);
            assert_int_equal(first.index, VICTIM);
            assert_int_equal(first.status, TERCIO_EDIED);
            if (method_of(state) == TERCIO_THREADING)
                assert_non_null(strstr(first.message, "thread"));
        }
    tercio_stats stats[2] = {{.size = sizeof *stats}};
    assert_int_equal(tercio_get_stats(pool, stats, 2), 2);
    assert_in_range(stats[0].restarts + stats[1].restarts, 3 * last + 2,
                    3 * last + 3); /* the last one may not be replaced yet */
    assert_int_equal(tercio_finish(pool, 0, NULL, NULL), 0);
    tercio_close(pool);
}

static void what_a_task_sets_ends_with_it(void **state)
{
    tercio_pool *pool = open_threads(state, 0);
    tercio_result first;
    if (method_of(state) != TERCIO_THREADING) {
        tercio_close(pool);
        skip();
    }
    assert_int_equal(map(pool, TURNS_CANCELLING_ON, &first), 0);
    tercio_close(pool);
}

static void threads_have_the_stack_that_is_asked_for(void **state)
{
    if (method_of(state) != TERCIO_THREADING)
        skip();
    tercio_pool *pool = open_threads(state, (size_t)64 << 20);
    tercio_result first;
    assert_int_equal(map(pool, USES_STACK, &first), 0);
    tercio_close(pool);
}

static void a_stack_is_never_smaller_than_the_systems(void **state)
{
    if (method_of(state) != TERCIO_THREADING)
        skip();
    pthread_attr_t attributes;
    size_t usual;
    pthread_attr_init(&attributes);
    pthread_attr_getstacksize(&attributes, &usual);
    pthread_attr_destroy(&attributes);
    const size_t asked[] = {0, 1, 65536};
    for (size_t i = 0; i < sizeof asked / sizeof *asked; i++) {
        tercio_pool *pool = open_threads(state, asked[i]);
        int in = 0, out = 0;
        assert_int_equal(tercio_map(pool, HOW_LARGE, &in, sizeof in, 1, &out, NULL, NULL), 0);
        assert_true((size_t)out >= usual >> 10);
        tercio_close(pool);
    }
}

static void too_large_a_stack_is_an_error_with_its_reason(void **state)
{
    if (method_of(state) != TERCIO_THREADING)
        skip();
    tercio_options options = face_options(method_of(state), 1);
    tercio_pool *pool;
    options.stack_size = SIZE_MAX / 4;
    errno = 0;
    assert_int_equal(tercio_open(&pool, &options), TERCIO_ESYSTEM);
    assert_true(errno == EAGAIN || errno == ENOMEM || errno == EINVAL);
}

int main(int argc, char **argv)
{
    static const face_test tests[] = {
        FACE_TEST(a_thread_that_ends_costs_its_item),
        FACE_TEST(what_a_task_sets_ends_with_it),
        FACE_TEST(threads_have_the_stack_that_is_asked_for),
        FACE_TEST(a_stack_is_never_smaller_than_the_systems),
        FACE_TEST(too_large_a_stack_is_an_error_with_its_reason),
    };
    tercio_worker_entry(argc, argv, &thread_table);
    return run_for_each_method("threads", tests, sizeof tests / sizeof *tests, argc > 1 ? argv[1] : NULL);
}
