/* SPDX-License-Identifier: MIT
 *
 * How a pool ends: tercio_finish waits for its work, tercio_close ends its workers and frees it. docs/design.md has the table
 * of states and events.
 */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fault.h"
#include "channel/layout.h"
#include "memory/arena.h"
#include "memory/views.h"
#include "plat/plat.h"
#include "pool/collect.h"
#include "pool/deaths.h"
#include "pool/failure.h"
#include "pool/force.h"
#include "pool/forked.h"
#include "pool/free.h"
#include "pool/garbage.h"
#include "pool/inbox.h"
#include "pool/message.h"
#include "pool/pending.h"
#include "pool/ring.h"
#include "pool/run.h"
#include "pool/supervise.h"
#include "pool/wait.h"
#include "pool/wake.h"
#include "start/start.h"
#include "state/pool.h"
#include "tercio.h"
#include "worker/worker.h"

static bool busy(const tercio_pool *pool)
{
    if (pool->pending)
        return true;
    for (const tercio_run *run = pool->runs; run; run = run->next)
        if (run->n_chunks)
            return true;
    return false;
}

static void ask_to_stop(tercio_pool *pool, uint32_t how)
{
    for (unsigned i = 0; i < pool->n_workers; i++) {
        tercio__worker *worker = &pool->workers[i];
        if (worker->state == TERCIO_STATE_NONE || worker->sender.map.words == NULL)
            continue;
        atomic_store_explicit(&worker->sender.map.words->stop, how, memory_order_release);
        if (how == TERCIO__STOP_NOW && worker->handle >= 0 &&
            atomic_load_explicit(&worker->sender.map.words->phase, memory_order_acquire) != TERCIO_STATE_WAIT)
            (void)tercio__process_signal(worker->handle, worker->pid, tercio__interrupt_signal());
        tercio__wake(worker);
    }
}

static void hand_out_exits(tercio_pool *pool, void (*on_exit)(void *user, const tercio_result *), void *user)
{
    tercio_result result = {0};
    tercio__lock(pool);
    tercio__inbox exits = pool->exits;
    pool->exits = (tercio__inbox){0};
    tercio__unlock(pool);
    while (tercio__inbox_take(&exits, &result)) {
        tercio_view view = {0};
        (void)tercio__make_whole(pool, &result, &view);
        if (pool->explain)
            pool->explain(&result);
        if (on_exit)
            on_exit(user, &result);
        tercio__view_close(&view);
        tercio__inbox_release(&exits, &result);
    }
}

/* A caller that sleeps until there is room, or that has no messages under way, waits for nothing any more: it is rung. */
static void close_to_work(tercio_pool *pool)
{
    if (pool->ending != TERCIO__OPEN)
        return;
    pool->ending = TERCIO__DRAINING;
    tercio__ring_all(pool);
}

/* The limit has passed. Processes are killed; threads are asked to stop, and those that don't are left behind after the
 * grace. Nothing that comes back from a worker is handed out again. */
static void drop_work(tercio_pool *pool)
{
    if (pool->ending < TERCIO__DROPPING) {
        pool->ending = TERCIO__DROPPING;
        pool->dropped_at = tercio__now();
    }
    tercio__runs_lose(pool, TERCIO_ECLOSED);
    tercio__drop_pending(pool, NULL);
    tercio__take_back(pool, NULL);
    for (unsigned i = 0; i < pool->n_workers; i++)
        tercio__end_by_force(&pool->workers[i]);
    tercio__ring_all(pool);
    tercio__bell_ring(pool->supervisor_bell); /* it sets its timer for the grace */
    while (pool->n_live > 0 && pool->ending != TERCIO__CLOSING && tercio__pool_wait(pool, 0, NULL) != TERCIO_ESYSTEM)
        tercio__pump(pool);
}

int tercio_finish_masked(tercio_pool *pool, double timeout, const void *sigmask,
                         void (*on_exit)(void *user, const tercio_result *), void *user)
{
    if (pool == NULL)
        return TERCIO_EINVAL;
    if (!tercio__is_ours(pool))
        return TERCIO_EFORKED;
    uint64_t deadline = timeout > 0 ? tercio__deadline(timeout) : 0;
    int result = 0;
    tercio__lock(pool);
    while (result == 0 && pool->ending < TERCIO__DROPPING && (pool->n_live > 0 || (busy(pool) && !pool->failure))) {
        tercio__pump(pool);
        if (!busy(pool)) {
            close_to_work(pool);
            ask_to_stop(pool, TERCIO__STOP_DRAINED);
        }
        if (pool->failure)
            ask_to_stop(pool, TERCIO__STOP_DRAINED);
        result = deadline && tercio__now() >= deadline ? TERCIO_EAGAIN : tercio__pool_wait(pool, deadline, sigmask);
    }
    if (result == TERCIO_EAGAIN) {
        drop_work(pool);
        result = TERCIO_ETIMEDOUT;
    }
    if (result == 0) {
        close_to_work(pool);
        if (pool->failure)
            result = pool->failure;
        else if (pool->ending >= TERCIO__DROPPING)
            result = TERCIO_ECLOSED; /* another caller's limit has passed, or the pool is closed */
    }
    tercio__unlock(pool);
    tercio__drop_garbage(pool);
    hand_out_exits(pool, on_exit, user);
    return result;
}

int tercio_finish(tercio_pool *pool, double timeout, void (*on_exit)(void *user, const tercio_result *), void *user)
{
    return tercio_finish_masked(pool, timeout, NULL, on_exit, user);
}

/* The program has closed the set, and perhaps the handles. A child that isn't reaped yet keeps its number, so a new
 * handle is of that child; what is no child of ours is a server's, which ends with its socket. Under the lock. */
static void end_unheard(tercio_pool *pool)
{
    for (unsigned i = 0; i < pool->n_workers; i++) {
        tercio__worker *worker = &pool->workers[i];
        tercio__exit how = {.code = -1};
        if (worker->state == TERCIO_STATE_NONE || worker->pid <= 0)
            continue;
        siginfo_t info;
        bool is_child = waitid(P_PID, (id_t)worker->pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0;
        int handle = is_child ? tercio__process_handle(worker->pid) : -1;
        if (handle >= 0 && tercio__process_reap(handle, worker->pid, &how) == TERCIO_EAGAIN) {
            (void)tercio__process_signal(handle, worker->pid, SIGKILL);
            (void)tercio__bells_wait(&handle, 1, 0, NULL);
            (void)tercio__process_reap(handle, worker->pid, &how);
        }
        if (handle >= 0)
            close(handle);
        worker->handle = -1; /* the number may be another descriptor's by now */
        tercio__worker_gone(worker, &how);
    }
}

/* The supervisor is gone: this thread reaps the workers. */
static void end_workers(tercio_pool *pool)
{
    double grace = pool->options.grace > 0 ? pool->options.grace : 1.0;
    uint64_t deadline = tercio__deadline(grace), token;
    bool killed = false;

    tercio__lock(pool);
    pool->ending = TERCIO__CLOSING;
    tercio__at("close: closing");
    tercio__drop_pending(pool, NULL);
    tercio__take_back(pool, NULL);
    ask_to_stop(pool, TERCIO__STOP_NOW);
    tercio__ring_all(pool);
    for (;;) {
        if (pool->starter->event)
            pool->starter->event(pool);
        tercio__bell_clear(pool->supervisor_bell);
        for (unsigned i = 0; i < pool->n_workers; i++)
            (void)tercio__worker_reap(&pool->workers[i]);
        if (pool->n_live == 0)
            break;
        tercio__unlock(pool);
        int n = tercio__set_wait(pool->set, &token, 1, killed ? 0 : deadline);
        tercio__lock(pool);
        if (n < 0 && pool->starter->processes) {
            end_unheard(pool);
            break;
        }
        if (n == 0 && !killed) {
            killed = true;
            for (unsigned i = 0; i < pool->n_workers; i++)
                tercio__kill_worker(&pool->workers[i]);
        }
    }
    tercio__unlock(pool);
}

static void free_memory(tercio_pool *pool)
{
    bool processes = pool->starter && pool->starter->processes;
    if (processes && pool->channels)
        tercio__shm_unmap(pool->channels, (size_t)pool->channels_bytes);
    if (processes && pool->page)
        tercio__shm_unmap(pool->page, TERCIO__PAGE_BYTES);
    else
        free(pool->page);
    tercio__arena_delete(pool->arena);
    if (pool->file) {
        tercio__file_listen(pool->file, -1);
        tercio__file_retire(pool->file);
        tercio__file_unref(pool->file);
    }
    free(pool->dead_ranges);
    pthread_cond_destroy(&pool->supervisor_moved);
    pthread_mutex_destroy(&pool->lock);
    tercio__pool_free(pool);
}

void tercio_close(tercio_pool *pool)
{
    if (pool == NULL)
        return;
    if (!tercio__is_ours(pool)) {
        tercio__pool_forget(pool);
        return;
    }
    tercio__pool_delist(pool);
    tercio__supervisor_park(pool);
    if (pool->started && pool->workers)
        end_workers(pool);
    tercio__supervisor_end(pool);
    tercio__lock(pool);
    while (pool->runs) {
        tercio_run *run = pool->runs;
        tercio__run_orphan(run);
        if (run->bell_public)
            tercio__bell_ring(run->bell);
    }
    tercio__unlock(pool);
    tercio__drop_garbage(pool);
    tercio__inbox_clear(&pool->exits, NULL, NULL);
    tercio__view_close(&pool->failure_view);
    if (pool->failure_taken)
        tercio__inbox_release(&pool->failures, &pool->failure_result);
    tercio__inbox_clear(&pool->failures, NULL, NULL);
    if (pool->starter && pool->starter->release && pool->workers)
        for (unsigned i = 0; i < pool->n_workers; i++)
            if (pool->workers[i].sender.map.words)
                pool->starter->release(&pool->workers[i]);
    if (pool->starter && pool->starter->close && pool->starter_data)
        pool->starter->close(pool);
    free_memory(pool);
}
