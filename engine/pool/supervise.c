/* SPDX-License-Identifier: MIT
 *
 * The supervisor: a thread of each pool that sleeps until a worker dies, a deadline passes, or work that no caller looks
 * after has to move. It has replacements started, and it calls host->notify. It never holds the pool's lock while it waits
 * or calls the host.
 */
#include "pool/supervise.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>

#include "base/threads.h"
#include "plat/plat.h"
#include "pool/announce.h"
#include "pool/collect.h"
#include "pool/deadlines.h"
#include "pool/deaths.h"
#include "pool/failure.h"
#include "pool/garbage.h"
#include "pool/notify.h"
#include "pool/purge.h"
#include "pool/wake.h"
#include "pool/workers.h"
#include "start/start.h"
#include "state/pool.h"
#include "tercio.h"

enum { TOKENS = 16 };
#define BELL_TOKEN UINT64_C(0x100000000)
#define STARTER_TOKEN UINT64_C(0x100000001)

static void take_token(tercio_pool *pool, uint64_t token)
{
    if (token == BELL_TOKEN)
        tercio__bell_clear(pool->supervisor_bell);
    else if (token == STARTER_TOKEN)
        pool->starter->event(pool);
}

static void reap_the_dead(tercio_pool *pool, const uint64_t *tokens, int n)
{
    for (int i = 0; i < n; i++)
        if (tokens[i] < pool->n_workers)
            (void)tercio__worker_reap(&pool->workers[tokens[i]]);
    for (unsigned i = 0; i < pool->n_workers; i++)
        if (pool->starter->event || pool->workers[i].goodbye || pool->workers[i].thread_runs)
            (void)tercio__worker_reap(&pool->workers[i]);
}

/* Once for what came: the host may leave it to a caller who is inside. */
static bool has_to_notify(tercio_pool *pool)
{
    if (pool->host->notify == NULL || !tercio__host_has_news(pool))
        return false;
    for (tercio_run *run = pool->runs; run; run = run->next)
        run->news = NO_NEWS;
    return true;
}

static void *supervise(void *data)
{
    tercio_pool *pool = data;
    uint64_t tokens[TOKENS];
    int n = 0;

    tercio__own_thread_of(pool, true);
    tercio__lock(pool);
    while (pool->supervisor_state == TERCIO__SUPERVISOR_RUNS) {
        for (int i = 0; i < n; i++)
            take_token(pool, tokens[i]);
        tercio__gather(pool);
        reap_the_dead(pool, tokens, n); /* reads what they said last */
        tercio__tell_callers(pool);
        bool hidden = false;
        uint64_t deadline = tercio__check_deadlines(pool, &hidden);
        deadline = tercio__sooner(tercio__sooner(deadline, tercio__purge(pool)), tercio__check_owed(pool));
        if (pool->n_waiting == 0) /* else a caller that sleeps has this deadline */
            deadline = tercio__sooner(deadline, pool->look_at_long);
        if (pool->needs_start && tercio__wants_workers(pool)) {
            tercio__unlock(pool);
            int error = tercio__start_missing(pool), number = errno;
            tercio__lock(pool);
            if (error) {
                tercio__entry entry = {.status = error, .code = number, .kind = TERCIO_KIND_START};
                tercio__pool_fail(pool, error, &entry, NULL, NULL,
                                  error == TERCIO_ESYSTEM ? strerror(number) : tercio_error_text(error));
            }
            n = 0;
            continue;
        }
        bool notify = has_to_notify(pool), garbage = !tercio__inbox_empty(&pool->garbage);
        if (!notify)
            tercio__arm_supervisor(pool, hidden);
        tercio__unlock(pool);
        if (garbage)
            tercio__drop_garbage(pool);
        if (notify)
            pool->host->notify(pool->host_user, NULL);
        n = tercio__set_wait(pool->set, tokens, TOKENS, notify ? 1 : deadline);
        tercio__lock(pool);
        if (n < 0) { /* somebody has closed it: nothing can be heard of any more */
            tercio__entry entry = {.status = TERCIO_ESYSTEM, .code = EBADF, .kind = TERCIO_KIND_START};
            tercio__pool_fail(pool, TERCIO_ESYSTEM, &entry, NULL, NULL,
                              "the program has closed file descriptors that a pool of workers was using");
            while (pool->supervisor_state == TERCIO__SUPERVISOR_RUNS)
                tercio__wait_unlocked(pool, &pool->supervisor_moved);
            n = 0;
        }
    }
    pool->supervisor_state = TERCIO__SUPERVISOR_PARKED;
    pthread_cond_broadcast(&pool->supervisor_moved);
    while (pool->supervisor_state != TERCIO__SUPERVISOR_RELEASED)
        tercio__wait_unlocked(pool, &pool->supervisor_moved);
    tercio__unlock(pool);
    return NULL;
}

int tercio__supervisor_watch(tercio_pool *pool)
{
    int error = tercio__set_add(pool->set, pool->supervisor_bell, BELL_TOKEN);
    for (size_t i = 0; i < sizeof pool->starter_events / sizeof pool->starter_events[0] && error == 0; i++)
        if (pool->starter_events[i] >= 0)
            error = tercio__set_add(pool->set, pool->starter_events[i], STARTER_TOKEN);
    return error;
}

/* A worker that the supervisor forks goes on with its stack, as the first ones do with the main thread's. */
static size_t supervisor_stack(const tercio_pool *pool)
{
    size_t own = pool->options.stack_size, main = tercio__main_stack();
    return pool->starter->copies_process && main > own ? main : own;
}

int tercio__supervisor_start(tercio_pool *pool)
{
    sigset_t all, old;
    /* Signals are the application's threads' to take. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    tercio__lock(pool); /* the thread begins with it: it finds its own number, and that it runs */
    int error = tercio__thread_start(&pool->supervisor, supervisor_stack(pool), supervise, pool);
    if (error && pool->starter->copies_process) /* so much address space may be refused */
        error = tercio__thread_start(&pool->supervisor, pool->options.stack_size, supervise, pool);
    if (error == 0)
        pool->supervisor_state = TERCIO__SUPERVISOR_RUNS;
    tercio__unlock(pool);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (error)
        return error;
    tercio__count_own_thread(1);
    return 0;
}

void tercio__supervisor_park(tercio_pool *pool)
{
    if (pool->supervisor_state == TERCIO__SUPERVISOR_NONE)
        return;
    tercio__lock(pool);
    pool->supervisor_state = TERCIO__SUPERVISOR_STOPS;
    tercio__bell_ring(pool->supervisor_bell);
    pthread_cond_broadcast(&pool->supervisor_moved);
    while (pool->supervisor_state != TERCIO__SUPERVISOR_PARKED)
        tercio__wait_unlocked(pool, &pool->supervisor_moved);
    tercio__unlock(pool);
}

void tercio__supervisor_end(tercio_pool *pool)
{
    if (pool->supervisor_state == TERCIO__SUPERVISOR_NONE)
        return;
    tercio__lock(pool);
    pool->supervisor_state = TERCIO__SUPERVISOR_RELEASED;
    pthread_cond_broadcast(&pool->supervisor_moved);
    tercio__unlock(pool);
    pthread_join(pool->supervisor, NULL);
    pool->supervisor_state = TERCIO__SUPERVISOR_NONE;
    tercio__count_own_thread(-1);
}
