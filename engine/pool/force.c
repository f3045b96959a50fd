/* SPDX-License-Identifier: MIT
 *
 * Ends a worker by force: a process is killed, a thread is left behind with its channel.
 */
#include "pool/force.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "channel/channel.h"
#include "channel/layout.h"
#include "plat/plat.h"
#include "pool/deaths.h"
#include "pool/spin.h"
#include "pool/wake.h"
#include "start/start.h"
#include "state/pool.h"
#include "tercio.h"

/* A thread that doesn't listen is left behind with its channel; its number gets a new one. */
static void leave_thread(tercio__worker *worker)
{
    tercio__exit unknown = {.code = -1};
    atomic_store_explicit(&worker->sender.map.words->stop, TERCIO__STOP_NOW, memory_order_release);
    atomic_store_explicit(&worker->sender.map.words->gate, TERCIO__GATE_DEAD, memory_order_release);
    pthread_detach(worker->thread);
    worker->thread_runs = false;
    tercio__worker_gone(worker, &unknown);
    /* Callers that look for news get a channel where none can come. Without memory for it, the old one stays until the
     * next start. */
    void *empty = aligned_alloc(64, (size_t)worker->pool->channel_bytes);
    if (empty) {
        tercio__stop_spinners(worker->pool);
        worker->pool->starter->release(worker);
        tercio__channel_at(&worker->sender.map, empty, worker->pool->page->ring_bytes);
        tercio__channel_reset(&worker->sender.map, worker->index, 0);
        worker->sender.tail = worker->sender.reclaimed = 0;
        atomic_store_explicit(&worker->sender.up_read, 0, memory_order_relaxed);
    }
}

void tercio__kill_worker(tercio__worker *worker)
{
    tercio__assert_locked(worker->pool);
    if (worker->state == TERCIO_STATE_NONE)
        return;
    if (worker->handle >= 0) {
        worker->struck = true;
        if (!worker->pool->options.no_group && worker->pool->starter->children_are_ours)
            tercio__process_kill_group(worker->pid);
        (void)tercio__process_signal(worker->handle, worker->pid, SIGKILL);
    } else if (worker->thread_runs) {
        leave_thread(worker);
    }
}

void tercio__end_by_force(tercio__worker *worker)
{
    tercio__assert_locked(worker->pool);
    if (worker->state == TERCIO_STATE_NONE || worker->sender.map.words == NULL)
        return;
    atomic_store_explicit(&worker->sender.map.words->stop, TERCIO__STOP_NOW, memory_order_release);
    if (worker->handle >= 0)
        tercio__kill_worker(worker);
    else
        tercio__wake(worker);
}
