/* SPDX-License-Identifier: MIT
 *
 * Waiting, in the parent: the leader/followers pattern. At most one caller, the leader, sleeps on the pool's caller
 * bell, which workers ring; it reads the answers of all runs. The other callers, the followers, sleep on bells of
 * their own, which the leader rings. A caller that leaves while there is no leader wakes a follower, and that
 * follower becomes the leader. The supervisor (supervise.c) handles deaths, deadlines, and work that no caller
 * attends to.
 */
#include "pool/wait.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>

#include "base/forks.h"
#include "plat/plat.h"
#include "pool/announce.h"
#include "pool/balance.h"
#include "pool/collect.h"
#include "pool/dispatch.h"
#include "pool/notify.h"
#include "pool/ring.h"
#include "pool/spin.h"
#include "pool/wake.h"
#include "state/pool.h"
#include "tercio.h"

/* A caller leaves. Where there is no leader, a follower has to become it, since workers ring the leader alone. The follower
 * that was woken for it may have got all that it wanted meanwhile, so a caller that never led hands over, too. */
static void hand_over(tercio_pool *pool)
{
    if (pool->has_leader)
        return;
    for (tercio_run *run = pool->runs; run; run = run->next)
        if (run->waits) {
            tercio__run_ring(run);
            return;
        }
    if (pool->pool_waiters)
        tercio__bell_ring(pool->pool_waiters->waits_on);
}

static bool answered(tercio_run *run, bool or_room)
{
    const tercio_pool *pool = run->pool;
    return tercio__has_something(run) || run->landing.n != run->landing.seen || pool->failure ||
           pool->ending == TERCIO__CLOSING || (pool->ending != TERCIO__OPEN && run->n_chunks == 0) ||
           (or_room && tercio__has_room(run));
}

int tercio__run_wait(tercio_run *run, double timeout, bool or_room, const sigset_t *sigmask)
{
    if (!tercio__inbox_empty(&run->current))
        return 0;
    int result = tercio__run_check(run);
    if (result)
        return result;
    tercio_pool *pool = run->pool;
    uint64_t deadline = tercio__deadline(timeout);
    bool spun = false;

    tercio__lock(pool);
    run->is_inside = true;
    tercio__wake_owed(pool);
    for (;;) {
        tercio__pump(pool);
        if (answered(run, or_room)) {
            result = 0;
            break;
        }
        if (run->interrupted || atomic_exchange_explicit(&pool->interrupted, 0, memory_order_relaxed)) {
            run->interrupted = false;
            result = TERCIO_EINTERRUPTED;
            break;
        }
        if (deadline && tercio__now() >= deadline) {
            result = TERCIO_EAGAIN;
            break;
        }
        if (!spun && run->n_chunks) {
            spun = true;
            pool->n_spinning++;
            tercio__unlock(pool);
            (void)tercio__spin(pool, deadline);
            tercio__lock(pool);
            if (--pool->n_spinning == 0 && atomic_load_explicit(&pool->spin_off, memory_order_relaxed))
                pthread_cond_broadcast(&pool->supervisor_moved);
            continue;
        }
        tercio__balance(pool, false); /* of what this caller hands in no more comes before it is awake again */
        bool leads = !pool->has_leader;
        if (!leads && run->bell < 0 && (run->bell = tercio__owned(tercio__bell_create())) < 0) {
            result = run->bell;
            run->bell = -1;
            break;
        }
        run->waits = true;
        run->wants_room = or_room;
        run->waits_on = leads ? pool->caller_bell : run->bell;
        pool->n_waiting++;
        pool->has_leader = true;
        tercio__announce(pool);
        result = 0;
        if (!tercio__news_after_announcing(pool)) {
            /* and not beyond the time when what holds up others will have taken long */
            uint64_t until = tercio__sooner(deadline, pool->look_at_long);
            tercio__unlock(pool);
            result = tercio__bells_wait(&run->waits_on, 1, until, sigmask);
            tercio__lock(pool);
            if (result == TERCIO_EINTERRUPTED && sigmask == NULL)
                result = 0; /* a handler of the application's ran: only tercio_interrupt ends such a wait */
        }
        tercio__bell_clear(run->waits_on);
        run->waits = false;
        pool->n_waiting--;
        if (leads)
            pool->has_leader = false;
        if (result < 0)
            break;
    }
    if (run->bell_public && answered(run, false))
        tercio__bell_ring(run->bell); /* whoever polls it still has something to take */
    run->is_inside = false;
    hand_over(pool);
    tercio__arm_supervisor(pool, false);
    tercio__unlock(pool);
    return result;
}

int tercio_wait(tercio_run *run, double timeout, bool or_room, const void *sigmask)
{
    if (run == NULL)
        return TERCIO_EINVAL;
    return tercio__run_wait(run, timeout, or_room, sigmask);
}

static int sleep_in_pool(tercio_pool *pool, uint64_t deadline, const sigset_t *sigmask, bool wants_room)
{
    int result = 0;
    bool leads = !pool->has_leader;
    tercio__wake_owed(pool);
    /* Two sleepers on one bell would take each other's rings. */
    tercio__pool_waiter self = {.waits_on = leads ? pool->caller_bell : tercio__owned(tercio__bell_create()),
                                .wants_room = wants_room},
                        **at;
    if (self.waits_on < 0)
        return TERCIO_ESYSTEM;
    self.next = pool->pool_waiters;
    pool->pool_waiters = &self; /* cppcheck-suppress autoVariables; it is taken out below */
    pool->n_waiting++;
    pool->has_leader = true;
    tercio__announce(pool);
    if (!tercio__news_after_announcing(pool)) {
        uint64_t until = tercio__sooner(deadline, pool->look_at_long);
        tercio__unlock(pool);
        result = tercio__bells_wait(&self.waits_on, 1, until, sigmask);
        if (result == TERCIO_EINTERRUPTED && wants_room && sigmask == NULL)
            result = 1; /* a handler of the application's ran: only tercio_interrupt ends such a wait */
        tercio__lock(pool);
        result = result == 0 && until == deadline ? TERCIO_EAGAIN : result > 0 ? 0 : result;
    }
    for (at = &pool->pool_waiters; *at != &self; at = &(*at)->next)
        ;
    *at = self.next;
    pool->n_waiting--;
    if (leads) {
        tercio__bell_clear(pool->caller_bell);
        pool->has_leader = false;
    } else {
        tercio__owned_close(self.waits_on, pool->fork_generation);
    }
    hand_over(pool);
    if (result == 0 && atomic_exchange_explicit(&pool->interrupted, 0, memory_order_relaxed))
        result = TERCIO_EINTERRUPTED;
    return result;
}

int tercio__pool_wait(tercio_pool *pool, uint64_t deadline, const sigset_t *sigmask)
{
    tercio__assert_locked(pool);
    return sleep_in_pool(pool, deadline, sigmask, false);
}

int tercio_wait_room(tercio_pool *pool, double timeout, const void *sigmask)
{
    if (pool == NULL)
        return TERCIO_EINVAL;
    if (!tercio__is_ours(pool))
        return TERCIO_EFORKED;
    uint64_t deadline = tercio__deadline(timeout);
    int result = 0;
    tercio__lock(pool);
    while (result == 0) {
        tercio__pump(pool);
        if (!tercio__takes_work(pool))
            result = pool->failure ? pool->failure : TERCIO_ECLOSED;
        if (result || tercio__may_hold(pool))
            break;
        if (deadline && tercio__now() >= deadline)
            result = TERCIO_EAGAIN;
        else
            result = sleep_in_pool(pool, deadline, sigmask, true);
        if (result == TERCIO_EAGAIN && tercio__may_hold(pool))
            result = 0;
    }
    tercio__arm_supervisor(pool, false);
    tercio__unlock(pool);
    return result;
}

void tercio_interrupt(tercio_pool *pool)
{
    if (pool == NULL || !tercio__is_ours(pool))
        return;
    atomic_store_explicit(&pool->interrupted, 1, memory_order_relaxed);
    tercio__bell_ring(pool->caller_bell);
}
