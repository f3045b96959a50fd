/* SPDX-License-Identifier: MIT
 *
 * The supervisor's thread: what it reads as it begins. The thread sanitizer sees whether that was written before.
 */
#include "child.h"

#include "tercio.h"

static int enter_and_exit(void *user, tercio_call *call, tercio_bytes prepare)
{
    (void)user, (void)call, (void)prepare;
    _exit(3);
}

static int run_nothing(void *user, tercio_call *call, const tercio_chunk *chunk)
{
    (void)user, (void)call, (void)chunk;
    return 0;
}

/* Workers that die as soon as they are started make it start others while tercio_open is still on its way. */
static void it_replaces_workers_at_once(void **state)
{
    enum { POOLS = SANITIZED ? 200 : 50 };
    static const tercio_host host = {.size = sizeof host, .enter = enter_and_exit, .run = run_nothing};
    tercio_options options = {
        .size = sizeof options, .host = &host, .n_workers = 2, .method = TERCIO_FORK, .threads_at_fork = true};
    (void)state;
    for (int i = 0; i < POOLS; i++) {
        tercio_pool *pool;
        int error = tercio_open(&pool, &options);
        assert_true(error == 0 || error == TERCIO_ESTART);
        tercio_close(pool);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(it_replaces_workers_at_once)};
    alarm(110);
    return cmocka_run_group_tests_name("supervisor", tests, NULL, NULL);
}
