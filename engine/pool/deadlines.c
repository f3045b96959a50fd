/* SPDX-License-Identifier: MIT
 *
 * Decides when a time limit has passed: of an item, of an init or exit function, of the end of a process, or of the
 * grace after an interruption. When one has passed, this code interrupts or kills the worker. The supervisor asks
 * here how long it may sleep.
 */
#include "pool/deadlines.h"

#include <stdatomic.h>

#include "base/atomics.h"
#include "channel/layout.h"
#include "plat/plat.h"
#include "pool/failure.h"
#include "pool/force.h"
#include "pool/interrupt.h"
#include "pool/message.h"
#include "pool/ring.h"
#include "state/pool.h"
#include "tercio.h"

enum { GRACES_AT_END = 5 };

void tercio__time_phases(tercio_pool *pool)
{
    bool timed = pool->options.init_timeout > 0 || pool->options.exit_timeout > 0;
    atomic_store_explicit(&pool->page->phases_timed, timed, memory_order_relaxed);
    atomic_thread_fence(memory_order_seq_cst); /* a worker stores its phase, then looks here */
}

int tercio_set_timeouts(tercio_pool *pool, double init_timeout, double exit_timeout)
{
    if (pool == NULL || !(init_timeout >= 0) || !(exit_timeout >= 0))
        return TERCIO_EINVAL;
    if (!tercio__is_ours(pool))
        return TERCIO_EFORKED;
    tercio__lock(pool);
    pool->options.init_timeout = init_timeout;
    pool->options.exit_timeout = exit_timeout;
    tercio__time_phases(pool);
    tercio__unlock(pool);
    tercio__bell_ring(pool->supervisor_bell); /* it sets its timer */
    return 0;
}

static uint64_t grace_ns(const tercio_pool *pool)
{
    return tercio__nanoseconds(pool->options.grace > 0 ? pool->options.grace : 1.0);
}

static void fail_phase(tercio__worker *worker, int kind)
{
    tercio__entry entry = {
        .index = worker->index, .status = TERCIO_ETIMEDOUT, .kind = kind, .worker = worker->index, .pid = worker->pid};
    tercio__pool_fail(worker->pool, TERCIO_ETIMEDOUT, &entry, NULL, NULL, tercio_error_text(TERCIO_ETIMEDOUT));
    tercio__kill_worker(worker);
}

/* True when a message that is queued behind what runs may run out of its time before we would look again. */
static bool hides_a_limit(const tercio__worker *worker, const tercio__chunk *running, uint64_t sequence)
{
    uint64_t least = running ? running->timeout_ns : 0;
    if (running == NULL)
        return false;
    for (uint64_t s = sequence + 1; s < worker->sender.tail; s++) {
        const tercio__chunk *chunk = &worker->inflight[s % TERCIO__SLOTS];
        if (!chunk->over && chunk->timeout_ns && (least == 0 || chunk->timeout_ns < least))
            return true;
    }
    return false;
}

/* An item that has not begun has no time of its own, but a worker that waits and doesn't take it, for as long as the item
 * might take and the grace, is one that won't. Returns: when that is; 0: it can't be told. */
static uint64_t limit_to_begin(tercio__worker *worker, uint64_t sequence, uint64_t timeout_ns, uint64_t now)
{
    if (worker->handle < 0 || !worker->alive)
        return 0;
    if (worker->offered_at == 0 || worker->offered_sequence != sequence) {
        worker->offered_at = now;
        worker->offered_sequence = sequence;
    }
    return worker->offered_at + timeout_ns + grace_ns(worker->pool);
}

/* What is over its time is told to stop, and killed after the grace. Returns: the next deadline; 0: none. */
static uint64_t check_worker(tercio__worker *worker, uint64_t now, bool *hidden)
{
    tercio_pool *pool = worker->pool;
    if (worker->state != TERCIO_STATE_START || worker->sender.map.words == NULL)
        return 0;
    tercio__channel *words = worker->sender.map.words;
    uint64_t since = LOAD(words->item_since, acquire), sequence = 0, limit;
    uint32_t phase = LOAD(words->phase, acquire);

    if (pool->dropped_at && worker->handle < 0 && !worker->thread_runs)
        return 0; /* it is being started, and start_worker ends it */
    if (pool->dropped_at) {
        limit = pool->dropped_at + grace_ns(pool);
        if (now < limit)
            return limit;
        tercio__kill_worker(worker);
        return 0;
    }
    if (worker->told_at) {
        limit = worker->told_at + grace_ns(pool);
        if (now < limit)
            return limit;
        worker->told_at = 0;
        tercio__kill_worker(worker);
        return 0;
    }
    uint64_t leaving = LOAD(words->leaving_since, acquire);
    if (leaving) {
        limit = leaving + GRACES_AT_END * grace_ns(pool);
        if (now < limit)
            return limit;
        worker->cut_short += !worker->struck;
        tercio__kill_worker(worker);
        return 0;
    }
    if (phase == TERCIO_STATE_INIT || phase == TERCIO_STATE_EXIT) {
        bool is_init = phase == TERCIO_STATE_INIT;
        double seconds = is_init ? pool->options.init_timeout : pool->options.exit_timeout;
        limit = (since ? since : now) + tercio__nanoseconds(seconds);
        if (seconds > 0 && now < limit)
            return limit;
        if (seconds > 0) {
            fail_phase(worker, is_init ? TERCIO_KIND_INIT : TERCIO_KIND_EXIT);
            return 0;
        }
    }
    tercio__chunk *chunk = tercio__running_chunk(worker, &sequence);
    *hidden |= hides_a_limit(worker, chunk, sequence);
    double init_limit = worker->sender.tail > worker->sender.reclaimed ? pool->options.init_timeout : 0;
    uint64_t next = init_limit > 0 && LOAD(words->ns_init, relaxed) == 0 ? now + tercio__nanoseconds(init_limit) : 0;
    if (chunk == NULL || chunk->over || chunk->timeout_ns == 0)
        return next;
    uint64_t what = LOAD(words->item_sequence, acquire);
    if (since == 0 || LOAD(words->item_since, relaxed) != since || phase != TERCIO_STATE_WORK ||
        what >> 32 != (sequence & UINT32_MAX)) {
        next = now + chunk->timeout_ns; /* about to begin */
        limit = phase == TERCIO_STATE_WAIT ? limit_to_begin(worker, sequence, chunk->timeout_ns, now) : 0;
        if (limit == 0 || now < limit)
            return limit && limit < next ? limit : next;
        tercio__kill_worker(worker); /* stopped, perhaps; what it has not begun goes to the next */
        return 0;
    }
    limit = since + chunk->timeout_ns;
    if (now < limit)
        return limit;
    if (chunk->run) {
        chunk->abort = TERCIO__ABORT_TIMEOUT;
        chunk->abort_item = (uint32_t)what;
    }
    if (chunk->run && worker->handle < 0) {
        /* A thread can't be made to stop: its caller hears in time all the same. */
        tercio_run *run = chunk->run;
        tercio__answer(chunk, (tercio__entry){.status = TERCIO_ETIMEDOUT, .worker = worker->index},
                       tercio_error_text(TERCIO_ETIMEDOUT));
        tercio__run_ring(run);
    }
    tercio__interrupt_worker(worker, sequence);
    return now + grace_ns(pool);
}

uint64_t tercio__check_deadlines(tercio_pool *pool, bool *hidden)
{
    tercio__assert_locked(pool);
    uint64_t next = 0, now = tercio__now();
    for (unsigned i = 0; i < pool->n_workers; i++) {
        next = tercio__sooner(next, check_worker(&pool->workers[i], now, hidden));
    }
    return next;
}
