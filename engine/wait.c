/* SPDX-License-Identifier: MIT
 *
 * Waiting, in the parent. At most one caller sleeps on the pool's caller bell, which workers ring; it drives the pool
 * for all. Others sleep on bells of their own runs, which whoever drives rings; whoever leaves while nobody drives wakes
 * one of them to take that place. Deaths, deadlines and work that no caller looks after are the keeper's (supervise.c).
 */
#include "fault.h"
#include "internal.h"

enum { LONGEST_SPIN = 20000, SKIPS = 16 }; /* ns; looks that are left out after spinning was in vain */

void tercio__run_ring(tercio_run *run)
{
    if (run->waits)
        tercio__bell_ring(run->waits_on);
    else if (run->bell_public)
        tercio__bell_ring(run->bell);
}

void tercio__ring_all(tercio_pool *pool)
{
    for (tercio_run *run = pool->runs; run; run = run->next)
        tercio__run_ring(run);
    for (tercio__pool_waiter *waiter = pool->pool_waiters; waiter; waiter = waiter->next)
        tercio__bell_ring(waiter->waits_on);
}

void tercio__ring_for_room(tercio_pool *pool)
{
    if (pool->pool_waiters == NULL || !tercio__may_hold(pool))
        return;
    for (tercio__pool_waiter *waiter = pool->pool_waiters; waiter; waiter = waiter->next)
        if (waiter->wants_room)
            tercio__bell_ring(waiter->waits_on);
}

/* ---- Announcing ---------------------------------------------------------------------------------------------------- */

/* Under the pool's lock. A worker takes back the announcement whose number it has seen, and no other. */
static void publish(_Atomic uint32_t *word, uint32_t wants)
{
    uint32_t number = atomic_load_explicit(word, memory_order_relaxed) / TERCIO__ANNOUNCED;
    tercio__at("announce: about to");
    atomic_store_explicit(word, (number + 1) * TERCIO__ANNOUNCED | wants, memory_order_seq_cst);
    atomic_thread_fence(memory_order_seq_cst);
    tercio__at("announce: announced");
}

/* Nobody sleeps for what comes of it, and somebody is to hear of it: the host, or who polls it. */
static bool is_for_others(const tercio_run *run)
{
    return !run->waits && ((run->options.notify && run->n_active > 0) ||
                           (run->bell_public && (run->n_chunks > 0 || run->refused_bytes)));
}

/* Where the worker is when it has done the first message that is for others; of several items each is news. */
static uint64_t mark_for_others(const tercio__worker *worker, uint32_t *wants)
{
    const tercio__sender *sender = &worker->sender;
    for (uint64_t s = sender->reclaimed; s < sender->tail; s++) {
        const tercio__chunk *chunk = &worker->inflight[s % TERCIO__SLOTS];
        if (chunk->over || chunk->run == NULL || !is_for_others(chunk->run))
            continue;
        if (chunk->n_items > 1)
            *wants = TERCIO__WANT_ANY;
        return s + 1;
    }
    return UINT64_MAX;
}

/* B1 for callers: what the workers shall ring for. */
static void announce(tercio_pool *pool)
{
    uint32_t wants = TERCIO__WANT_LOW_WATER;
    bool feeding = false, others = false;
    for (const tercio__pool_waiter *waiter = pool->pool_waiters; waiter; waiter = waiter->next)
        if (waiter->wants_room)
            feeding = true;
        else
            wants = TERCIO__WANT_ANY;
    for (tercio_run *run = pool->runs; run; run = run->next) {
        others |= is_for_others(run);
        feeding |= run->waits ? run->wants_room : run->bell_public && run->refused_bytes;
        if (run->waits && !run->options.low_water)
            wants = TERCIO__WANT_ANY;
    }
    for (unsigned i = 0; i < pool->n_workers && wants == TERCIO__WANT_LOW_WATER; i++) {
        tercio__worker *worker = &pool->workers[i];
        tercio__sender *sender = &worker->sender;
        uint64_t passed = tercio__sender_passed(sender), load = sender->tail - passed;
        uint64_t mark = load == 0 ? UINT64_MAX : feeding ? passed + (load + 1) / 2 : sender->tail;
        if (load == 0 && worker->restarts && !worker->alive)
            mark = 0; /* when it lives, it can have some of what was queued for others meanwhile */
        uint64_t other = others ? mark_for_others(worker, &wants) : UINT64_MAX;
        if (other < mark)
            mark = other;
        atomic_store_explicit(&sender->map.words->low_water, mark, memory_order_relaxed);
    }
    publish(&pool->page->caller_wants, wants);
}

/* A look after the announcement: anything that a worker may have said without seeing it. */
static bool news_after_announcing(const tercio_pool *pool)
{
    if (tercio__has_news(pool))
        return true;
    for (unsigned i = 0; i < pool->n_workers; i++) {
        const tercio__sender *sender = &pool->workers[i].sender;
        if (tercio__sender_passed(sender) != sender->reclaimed)
            return true;
    }
    return false;
}

void tercio__arm_keeper(tercio_pool *pool, bool always)
{
    bool wanted = pool->pending != NULL;
    for (tercio_run *run = pool->runs; run && !wanted; run = run->next)
        wanted = is_for_others(run);
    if (!always && !wanted)
        return;
    if (!always && pool->n_waiting > 0) {
        /* A caller that sleeps looks after everything. What it asked to be woken for, it asked before this was there. */
        if ((atomic_load_explicit(&pool->page->caller_wants, memory_order_relaxed) & TERCIO__WANTS) !=
            TERCIO__WANT_LOW_WATER)
            return;
        announce(pool);
        if (news_after_announcing(pool))
            tercio__bell_ring(pool->caller_bell);
        return;
    }
    /* Also where it stands announced: a worker that has rung may be about to take that one back. */
    publish(&pool->page->keeper_wants, TERCIO__WANT_ANY);
    if (news_after_announcing(pool))
        tercio__bell_ring(pool->keeper_bell);
}

/* ---- Looking before sleeping ------------------------------------------------------------------------------------------ */

/* Looks for news for a while: waking costs a hundred times what a short look does. How long follows how often it
 * was worth it; yielding lets the worker that we wait for have this CPU. Not under the lock. */
static bool spin(tercio_pool *pool, uint64_t deadline)
{
    uint64_t budget = pool->spin_ns;
    if (budget == 0) {
        if (++pool->spin_skips < SKIPS)
            return false;
        pool->spin_skips = 0;
        budget = LONGEST_SPIN / 4;
    }
    uint64_t end = tercio__now() + budget;
    if (deadline && deadline < end)
        end = deadline;
    do {
        for (int i = 0; i < 16; i++)
            if (tercio__has_news(pool)) {
                pool->spin_ns = LONGEST_SPIN;
                return true;
            }
        tercio__yield();
    } while (tercio__now() < end && !atomic_load_explicit(&pool->spin_off, memory_order_relaxed));
    pool->spin_ns = pool->spin_ns > LONGEST_SPIN / 8 ? pool->spin_ns / 2 : 0;
    return false;
}

void tercio__stop_spinners(tercio_pool *pool)
{
    atomic_store_explicit(&pool->spin_off, true, memory_order_relaxed);
    while (pool->n_spinning)
        pthread_cond_wait(&pool->keeper_moves, &pool->lock);
    atomic_store_explicit(&pool->spin_off, false, memory_order_relaxed);
}

/* ---- Sleeping ---------------------------------------------------------------------------------------------------------- */

/* Somebody leaves: while nobody drives, another one who sleeps has to take the workers' calls. Whom a driver woke for
 * that may have got all that it wanted meanwhile, so who leaves without having driven passes on, too. */
static void pass_on(tercio_pool *pool)
{
    if (pool->driver)
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
            (void)spin(pool, deadline);
            tercio__lock(pool);
            if (--pool->n_spinning == 0 && atomic_load_explicit(&pool->spin_off, memory_order_relaxed))
                pthread_cond_broadcast(&pool->keeper_moves);
            continue;
        }
        tercio__balance(pool, false); /* of what this caller hands in no more comes before it is awake again */
        bool drives = !pool->driver;
        if (!drives && run->bell < 0 && (run->bell = tercio__owned(tercio__bell_create())) < 0) {
            result = run->bell;
            run->bell = -1;
            break;
        }
        run->waits = true;
        run->wants_room = or_room;
        run->waits_on = drives ? pool->caller_bell : run->bell;
        pool->n_waiting++;
        pool->driver = true;
        announce(pool);
        result = 0;
        if (!news_after_announcing(pool)) {
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
        if (drives)
            pool->driver = false;
        if (result < 0)
            break;
    }
    if (run->bell_public && answered(run, false))
        tercio__bell_ring(run->bell); /* whoever polls it still has something to take */
    run->is_inside = false;
    pass_on(pool);
    tercio__arm_keeper(pool, false);
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
    bool drives = !pool->driver;
    tercio__wake_owed(pool);
    /* Two sleepers on one bell would take each other's rings. */
    tercio__pool_waiter self = {.waits_on = drives ? pool->caller_bell : tercio__owned(tercio__bell_create()),
                                .wants_room = wants_room},
                        **at;
    if (self.waits_on < 0)
        return TERCIO_ESYSTEM;
    self.next = pool->pool_waiters;
    pool->pool_waiters = &self; /* cppcheck-suppress autoVariables; it is taken out below */
    pool->n_waiting++;
    pool->driver = true;
    announce(pool);
    if (!news_after_announcing(pool)) {
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
    if (drives) {
        tercio__bell_clear(pool->caller_bell);
        pool->driver = false;
    } else {
        tercio__owned_close(self.waits_on, pool->fork_generation);
    }
    pass_on(pool);
    if (result == 0 && atomic_exchange_explicit(&pool->interrupted, 0, memory_order_relaxed))
        result = TERCIO_EINTERRUPTED;
    return result;
}

int tercio__pool_wait(tercio_pool *pool, uint64_t deadline, const sigset_t *sigmask)
{
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
    tercio__arm_keeper(pool, false);
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
