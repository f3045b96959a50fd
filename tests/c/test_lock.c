/* SPDX-License-Identifier: MIT
 *
 * The pool's lock in a debug build: a function that needs it ends the program where its caller doesn't hold it.
 */
#include "child.h"

#include <pthread.h>
#include <signal.h>

#include "pool/ring.h"
#include "state/pool.h"

#ifdef NDEBUG
enum { DEBUG_BUILD = false };
#else
enum { DEBUG_BUILD = true };
#endif

static tercio_pool pool;

static void *hold(void *argument)
{
    tercio__lock(argument);
    return NULL;
}

/* Returns: the signal that ended a child which rings all callers. */
static int ring_in_a_child(void (*before)(void))
{
    int status;
    pid_t pid = fork();
    if (pid == 0) {
        (void)freopen("/dev/null", "w", stderr); /* the assertion's text */
        before();
        tercio__ring_all(&pool);
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

static void take(void)
{
    tercio__lock(&pool);
}

static void take_and_give_back(void)
{
    tercio__lock(&pool);
    tercio__unlock(&pool);
}

static void have_another_thread_take(void)
{
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, hold, &pool) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
}

static void its_holder_may_ring(void **state)
{
    (void)state;
    assert_int_equal(ring_in_a_child(take), 0);
}

static void nobody_else_may(void **state)
{
    (void)state;
    if (!DEBUG_BUILD)
        skip();
    assert_int_equal(ring_in_a_child(take_and_give_back), SIGABRT);
    assert_int_equal(ring_in_a_child(have_another_thread_take), SIGABRT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(its_holder_may_ring), cmocka_unit_test(nobody_else_may)};
    if (pthread_mutex_init(&pool.lock, NULL))
        return 1;
    return cmocka_run_group_tests_name("lock", tests, NULL, NULL);
}
