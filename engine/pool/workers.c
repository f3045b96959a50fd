/* SPDX-License-Identifier: MIT
 *
 * Starts workers, the first ones and those that take the place of others.
 */
#include "pool/workers.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "base/atomics.h"
#include "base/fault.h"
#include "base/forks.h"
#include "channel/channel.h"
#include "channel/layout.h"
#include "plat/plat.h"
#include "pool/deaths.h"
#include "pool/dispatch.h"
#include "pool/force.h"
#include "pool/order.h"
#include "pool/ring.h"
#include "pool/spin.h"
#include "start/start.h"
#include "state/pool.h"
#include "tercio.h"

bool tercio__wants_workers(const tercio_pool *pool)
{
    return tercio__takes_work(pool) && pool->supervisor_state <= TERCIO__SUPERVISOR_RUNS;
}

static int new_channel(tercio__worker *worker)
{
    tercio_pool *pool = worker->pool;
    tercio__sender *sender = &worker->sender;
    uint32_t lifespan = sender->map.words ? LOAD(sender->map.words->lifespan, relaxed) : 0;
    tercio__stop_spinners(pool);
    if (sender->map.words && pool->starter->release)
        pool->starter->release(worker);
    if (sender->map.words == NULL) {
        void *memory = pool->channels + worker->index * pool->channel_bytes;
        if (!pool->starter->processes) {
            memory = aligned_alloc(64, (size_t)pool->channel_bytes);
            if (memory == NULL)
                return TERCIO_ENOMEM;
        }
        tercio__channel_at(&sender->map, memory, pool->page->ring_bytes);
    }
    tercio__channel_reset(&sender->map, worker->index, (uint32_t)worker->restarts);
    sender->tail = sender->reclaimed = sender->down_used = sender->down_freed = 0;
    atomic_store_explicit(&sender->up_read, 0, memory_order_relaxed);
    atomic_store_explicit(&sender->map.words->lifespan, lifespan, memory_order_relaxed);
    if (pool->options.n_cpu_ids)
        sender->map.words->cpu = pool->options.cpu_ids[worker->index % pool->options.n_cpu_ids];
    worker->family = sender->map.words->family = pool->page->takes_children ? tercio__family_new() : 0;
    sender->map.words->begun = worker->begun = tercio__now();
    worker->goodbye = worker->alive = worker->struck = worker->is_lost = false;
    worker->offered_at = worker->stuck_at = 0;
    tercio__order_anew(worker);
    worker->seen_done = worker->seen_work = 0;
    return 0;
}

static void open_gate(tercio__worker *worker, uint32_t gate)
{
    _Atomic uint32_t *word = &worker->sender.map.words->gate;
    tercio__at("gate: about to open");
    atomic_store_explicit(word, gate, memory_order_release);
    tercio__at("gate: open");
    tercio__word_wake(word);
}

/* Returns: 0 or an error, errno kept. */
static int start_worker(tercio__worker *worker, bool again)
{
    tercio_pool *pool = worker->pool;
    tercio__lock(pool);
    int error = new_channel(worker);
    if (error == 0) {
        worker->restarts += again;
        worker->state = TERCIO_STATE_START; /* messages may come before it lives */
        pool->n_live++;
        pool->is_spread = false;
        pool->level = 0;
    }
    tercio__unlock(pool);
    if (error)
        return error;
    tercio__started made = {.handle = -1};
    tercio__exit never = {.code = -1};
    tercio__at("start: about to");
    error = pool->starter->start(worker, &made);
    int saved_errno = errno;
    tercio__at("start: started");
    tercio__lock(pool);
    if (error == 0) {
        worker->pid = made.pid;
        worker->handle = tercio__owned(made.handle);
        worker->thread = made.thread;
        worker->thread_runs = made.thread_runs;
        worker->starter_data = made.data;
    }
    if (error == 0 && pool->starter->children_are_ours &&
        (error = tercio__set_add(pool->set, worker->handle, worker->index)) != 0) {
        saved_errno = errno;
        open_gate(worker, TERCIO__GATE_DEAD);
        (void)tercio__process_signal(worker->handle, worker->pid, SIGKILL);
        (void)tercio__bells_wait(&worker->handle, 1, 0, NULL); /* it stands at the gate: nothing holds it up */
        (void)pool->starter->reap(worker, &never);
    }
    if (error) {
        worker->stillborn = 0;
        worker->goodbye = true; /* nothing ran */
        tercio__worker_gone(worker, &never);
    } else {
        if (pool->ending >= TERCIO__DROPPING) /* since it was begun */
            tercio__end_by_force(worker);
        open_gate(worker, TERCIO__GATE_OPEN);
        tercio__ring_all(pool); /* who waits for room has some, and the worker doesn't know */
    }
    tercio__dispatch_pending(pool);
    tercio__unlock(pool);
    errno = saved_errno;
    return error;
}

int tercio__start_missing(tercio_pool *pool)
{
    int error = 0;
    bool again = pool->started;
    tercio__lock(pool);
    pool->needs_start = false;
    tercio__unlock(pool);
    for (unsigned i = 0; i < pool->n_workers && error == 0; i++) {
        tercio__lock(pool);
        bool missing = pool->workers[i].state == TERCIO_STATE_NONE && tercio__wants_workers(pool);
        tercio__unlock(pool);
        if (missing)
            error = start_worker(&pool->workers[i], again);
    }
    pool->started = true;
    return error;
}
