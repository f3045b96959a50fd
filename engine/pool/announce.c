/* SPDX-License-Identifier: MIT
 *
 * A caller or the supervisor announces in shared memory that it is about to sleep, and for what; workers ring it then. After
 * the announcement it looks once more, so that no answer comes between the look and the sleep.
 */
#include "pool/announce.h"

#include <stdatomic.h>

#include "base/fault.h"
#include "channel/channel.h"
#include "channel/layout.h"
#include "plat/plat.h"
#include "state/pool.h"
#include "tercio.h"

bool tercio__has_news(const tercio_pool *pool)
{
    for (unsigned i = 0; i < pool->n_workers; i++)
        if (tercio__receiver_has_news(&pool->workers[i].sender))
            return true;
    return false;
}

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
void tercio__announce(tercio_pool *pool)
{
    tercio__assert_locked(pool);
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
bool tercio__news_after_announcing(const tercio_pool *pool)
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

void tercio__arm_supervisor(tercio_pool *pool, bool always)
{
    tercio__assert_locked(pool);
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
        tercio__announce(pool);
        if (tercio__news_after_announcing(pool))
            tercio__bell_ring(pool->caller_bell);
        return;
    }
    /* Also where it stands announced: a worker that has rung may be about to take that one back. */
    publish(&pool->page->supervisor_wants, TERCIO__WANT_ANY);
    if (tercio__news_after_announcing(pool))
        tercio__bell_ring(pool->supervisor_bell);
}
