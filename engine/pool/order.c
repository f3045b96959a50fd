/* SPDX-License-Identifier: MIT
 *
 * The order of a run within each worker, and what moves from one worker to another.
 *
 * A worker begins the messages of a run in their order (tercio__chunk.turn), as the readers of one shared queue do. New
 * messages keep it by themselves. One that comes back (its worker died or ended, or it was taken from a ring) waits on
 * pending for a worker that has begun no later one; new messages of the run leave such a worker alone meanwhile. There is
 * one, or one comes: a worker that died or ended is replaced, and the new one has begun nothing; a worker that left a
 * message unfinished has begun nothing behind it where the run is strict, since nothing lies behind it.
 *
 * A run that is not strict gives the order up where the alternative is to wait for a message that has taken long:
 * tasks may wait for each other, and one that was queued behind another would wait for ever. With a strict run nothing is
 * queued behind another one.
 *
 * Runs without an order (options.notify: single tasks) move as they like.
 */
#include "pool/order.h"

#include "base/atomics.h"
#include "channel/layout.h"
#include "plat/plat.h"
#include "pool/interrupt.h"
#include "state/pool.h"
#include "tercio.h"

enum { LONG = 20000000 /* ns */, TIMES = 4 /* ... beyond so many times what is usual */ };

/* 1 + the highest turn of the run that the worker has begun, or will, from its ring. */
static uint64_t begun_up_to(const tercio__worker *worker, const tercio_run *run)
{
    uint64_t last = run->passed[worker->index];
    for (uint64_t s = worker->sender.reclaimed; s < worker->sender.tail; s++) {
        const tercio__chunk *chunk = &worker->inflight[s % TERCIO__SLOTS];
        if (!chunk->over && chunk->run == run && chunk->turn >= last)
            last = chunk->turn + 1;
    }
    return last;
}

/* Also where it has begun this one, and left it unfinished. */
bool tercio__keeps_order(const tercio__worker *worker, const tercio_run *run, uint64_t turn)
{
    return begun_up_to(worker, run) <= turn + 1;
}

static bool is_meant(const tercio__worker *worker, const tercio_run *run, uint64_t turn)
{
    return !run->options.in_turn || turn % worker->pool->n_workers == worker->index;
}

bool tercio__may_have(const tercio__worker *worker, const tercio_run *run, uint64_t turn)
{
    tercio__assert_locked(run->pool);
    uint64_t last = begun_up_to(worker, run);
    unsigned left = run->n_pending;
    if (last > turn + 1)
        return false;
    for (const tercio__chunk *chunk = run->pool->pending; chunk && left; chunk = chunk->next) {
        if (chunk->run != run)
            continue;
        left--;
        if (chunk->turn < turn && last <= chunk->turn + 1 && is_meant(worker, run, chunk->turn))
            return false;
    }
    return true;
}

void tercio__order_anew(const tercio__worker *worker)
{
    tercio__assert_locked(worker->pool);
    for (tercio_run *run = worker->pool->runs; run; run = run->next)
        run->passed[worker->index] = 0;
}

static void look_at(tercio_pool *pool, uint64_t when)
{
    if (pool->look_at_long == 0 || when < pool->look_at_long)
        pool->look_at_long = when;
}

/* The worker is about to begin its next message. If it is stopped it never does, so that is looked at again, each time
 * after twice the time. */
static bool is_stuck_before(tercio__worker *worker, uint64_t sequence, uint64_t now)
{
    if (worker->stuck_at == 0 || worker->stuck_sequence != sequence) {
        worker->stuck_at = now;
        worker->stuck_sequence = sequence;
    }
    look_at(worker->pool, now + (now - worker->stuck_at) + LONG);
    return false;
}

/* What the worker runs has taken long, against what such messages take. If not, somebody looks again when it will have. */
bool tercio__is_long(tercio__worker *worker)
{
    tercio__channel *words = worker->sender.map.words;
    uint64_t sequence, now = tercio__now();
    const tercio__chunk *chunk = tercio__running_chunk(worker, &sequence);
    if (chunk == NULL)
        return false;
    uint64_t since = LOAD(words->item_since, acquire), what = LOAD(words->item_sequence, acquire);
    if (since == 0 || LOAD(words->item_since, relaxed) != since || what >> 32 != (sequence & UINT32_MAX))
        return is_stuck_before(worker, sequence, now);
    double usual = chunk->run ? chunk->run->item_ns * chunk->n_items : 0;
    uint64_t limit = since + LONG + (uint64_t)(usual * TIMES);
    if (now >= limit)
        return true;
    look_at(worker->pool, limit);
    return false;
}

bool tercio__is_worth_waiting(tercio_pool *pool, const tercio__chunk *chunk)
{
    tercio__assert_locked(pool);
    tercio_run *run = chunk->run;
    if (run->is_strict)
        return true;
    for (unsigned i = 0; i < pool->n_workers; i++) {
        tercio__worker *worker = &pool->workers[i];
        if (!is_meant(worker, run, chunk->turn))
            continue;
        bool is_replaced = worker->state == TERCIO_STATE_NONE || worker->goodbye;
        if (is_replaced ? tercio__takes_work(pool)
                        : tercio__keeps_order(worker, run, chunk->turn) && !tercio__is_long(worker))
            return true;
    }
    return false;
}
