/* SPDX-License-Identifier: MIT
 *
 * What follows the death of a worker. Its answers are read to the end. The item that it ran is answered or retried,
 * and the items that it had not begun go to another worker. Its counters and its memory are kept as long as anything
 * needs them.
 */
#include "pool/deaths.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/atomics.h"
#include "base/fault.h"
#include "base/forks.h"
#include "channel/channel.h"
#include "channel/layout.h"
#include "memory/arena.h"
#include "plat/plat.h"
#include "pool/collect.h"
#include "pool/context.h"
#include "pool/failure.h"
#include "pool/garbage.h"
#include "pool/message.h"
#include "pool/pending.h"
#include "pool/purge.h"
#include "pool/ring.h"
#include "pool/stats.h"
#include "start/start.h"
#include "state/pool.h"
#include "tercio.h"

enum { STILLBORN = 3, STILLBORN_BY_KILL = 20 };

static void describe_death(const tercio__worker *worker, const tercio__exit *how, char *text, size_t size)
{
    if (how->signal)
        (void)snprintf(text, size, "worker %u was killed by signal %d (%s)", worker->index, how->signal,
                       strsignal(how->signal));
    else if (how->code >= 0)
        (void)snprintf(text, size, "worker %u exited with code %d in the middle of its work", worker->index, how->code);
    else if (worker->is_lost)
        (void)snprintf(text, size, "the thread of worker %u was ended by its task (by pthread_exit, or cancelled)",
                       worker->index);
    else
        (void)snprintf(text, size, "worker %u is gone; how it ended is unknown", worker->index);
}

/* ---- For want of memory ------------------------------------------------------------------------------------------- */

/* Workers of all pools of this process that died by SIGKILL, and not by ours. */
static _Atomic uint64_t n_killed;

void tercio__note_memory_kills(tercio_pool *pool)
{
    pool->counts_memory_kills = tercio__memory_kills(&pool->memory_kills) == 0;
    pool->all_killed = LOAD(n_killed, relaxed);
}

/* Those of the pool that have died and aren't reaped yet: one of them may be what the kernel counted. */
static uint64_t count_dying(const tercio_pool *pool)
{
    uint64_t n = 0;
    for (unsigned i = 0; i < pool->n_workers; i++) {
        const tercio__worker *worker = &pool->workers[i];
        n += worker->handle >= 0 && !worker->goodbye && !worker->struck &&
             tercio__bells_wait(&worker->handle, 1, 1, NULL) == 1;
    }
    return n;
}

/* The kernel counts first and kills then, but doesn't say whom: it is sure only where it has killed as many processes
 * of this control group as workers of this process were killed, whoever did it. */
static bool died_for_memory(tercio__worker *worker, const tercio__exit *how)
{
    tercio_pool *pool = worker->pool;
    uint64_t kills;
    if (how->signal != SIGKILL || worker->struck || worker->goodbye)
        return false;
    uint64_t killed = atomic_fetch_add_explicit(&n_killed, 1, memory_order_relaxed) + 1;
    if (!pool->counts_memory_kills || tercio__memory_kills(&kills))
        return false;
    if (kills == pool->memory_kills) { /* neither this one nor those before it */
        pool->all_killed = killed;
        return false;
    }
    int handle = worker->handle;
    worker->handle = -1; /* it is counted already */
    uint64_t suspects = killed - pool->all_killed + count_dying(pool);
    worker->handle = handle;
    return kills - pool->memory_kills >= suspects;
}

/* ---- What it leaves ---------------------------------------------------------------------------------------------- */

/* The item that a dead worker was running: an answer, or another try. */
static void settle_victim(tercio__worker *worker, tercio__chunk *chunk, const tercio__exit *how)
{
    char text[192];
    tercio__entry entry = {.worker = worker->index, .pid = worker->pid};
    bool meant = chunk->abort != TERCIO__ABORT_NO && chunk->abort_item == chunk->done;
    if (chunk->abort == TERCIO__ABORT_DROP || chunk->run->stopped || !tercio__keeps_work(worker->pool))
        return; /* what ended the pool is what its callers shall hear, not the death that followed */
    if (chunk->abort != TERCIO__ABORT_NO && chunk->abort_item < chunk->done)
        return; /* it was answered when its time was up */
    if (meant) {
        entry.status = chunk->abort == TERCIO__ABORT_TIMEOUT ? TERCIO_ETIMEDOUT : TERCIO_ECANCELED;
        tercio__answer(chunk, entry, tercio_error_text(entry.status));
        return;
    }
    if (chunk->attempts <= chunk->run->options.retries)
        return;
    entry.status = TERCIO_EDIED;
    entry.code = how->code;
    entry.signal = how->signal;
    entry.peak_rss = how->peak_rss;
    entry.out_of_memory = worker->died_for_memory;
    describe_death(worker, how, text, sizeof text);
    tercio__answer(chunk, entry, text);
    if (chunk->run->options.stop_on_error && !chunk->run->stopped) {
        chunk->run->stopped = true;
        tercio__drop_pending(worker->pool, chunk->run);
        tercio__take_back(worker->pool, chunk->run);
    }
}

/* The thread has not ended, and nobody waits for it any more. */
static bool is_left_behind(const tercio__worker *worker)
{
    return !worker->pool->starter->processes && !worker->goodbye && !worker->is_lost;
}

static void settle_messages(tercio__worker *worker, const tercio__exit *how)
{
    tercio_pool *pool = worker->pool;
    tercio__sender *sender = &worker->sender;
    uint32_t phase = LOAD(sender->map.words->phase, acquire);
    bool running = !worker->goodbye && (phase == TERCIO_STATE_WORK || phase == TERCIO_STATE_INIT);

    /* From the youngest to the oldest: each goes to the front of what is pending. */
    for (uint64_t s = sender->tail; s-- > sender->reclaimed;) {
        tercio__chunk *chunk = &worker->inflight[s % TERCIO__SLOTS];
        const unsigned char *bytes = tercio__sender_bytes(sender, s);
        if (chunk->over)
            continue;
        bool unseen = tercio__sender_revoke(sender, s), in_use = !unseen && is_left_behind(worker);
        if (in_use)
            tercio__context_strand(pool, chunk->context);
        bool began =
            !unseen && running && chunk->done < chunk->n_items; /* killed behind its last answer, it ran none */
        if (began && chunk->run)
            settle_victim(worker, chunk, how);
        bool wanted = !chunk->over && chunk->run && !chunk->run->stopped && tercio__keeps_work(pool) &&
                      chunk->abort != TERCIO__ABORT_DROP && chunk->done < chunk->n_items;
        if (wanted && !began && chunk->attempts)
            chunk->attempts--;
        if (wanted && tercio__requeue(worker, s, !unseen) == 0)
            continue;
        if (wanted)
            chunk->run->error = TERCIO_ENOMEM;
        if (!chunk->over) {
            if (chunk->done < chunk->n_items)
                tercio__garbage(pool, bytes + chunk->n_blocks * sizeof(tercio_block), chunk->head_size, chunk->n_items,
                                chunk->done, false);
            tercio__chunk_over(pool, chunk, (const tercio_block *)(const void *)bytes,
                               in_use ? worker->index + 1 : TERCIO__BLOCKS_FREE);
        }
    }
}

/* Counters of a worker go on when its process doesn't. */
static void keep_counters(tercio__worker *worker)
{
    tercio__channel *words = worker->sender.map.words;
    worker->past_tasks += LOAD(words->n_done, relaxed);
    worker->past[0] += LOAD(words->ns_start, relaxed);
    worker->past[1] += LOAD(words->ns_init, relaxed);
    worker->past[2] += LOAD(words->ns_wait, relaxed);
    worker->past[3] += LOAD(words->ns_work, relaxed);
    worker->past[4] += LOAD(words->ns_exit, relaxed);
    tercio__keep_longest(worker);
}

static void reap_arena(tercio__worker *worker)
{
    tercio_pool *pool = worker->pool;
    tercio__channel *words = worker->sender.map.words;
    uint32_t n = LOAD(words->n_segments, acquire);
    if (is_left_behind(worker))
        tercio__arena_abandon(pool->arena, worker->index + 1);
    else
        tercio__arena_reap(pool->arena, worker->index + 1);
    if (!pool->starter->processes)
        return;
    for (uint32_t i = 0; i < n && i < TERCIO__SEGMENTS; i++) {
        tercio__range *more = realloc(pool->dead_ranges, (pool->n_dead_ranges + 1) * sizeof *more);
        if (more == NULL)
            return; /* its memory is held until the pool ends */
        pool->dead_ranges = more;
        if (words->segments[i].size)
            more[pool->n_dead_ranges++] = words->segments[i];
    }
}

/* A worker that dies of itself while it starts will do so again; one that was killed may just have been hit by chance. */
static uint64_t still_born_limit(const tercio__exit *how)
{
    return how->signal == SIGKILL ? STILLBORN_BY_KILL : STILLBORN;
}

void tercio__worker_gone(tercio__worker *worker, const tercio__exit *how)
{
    tercio__assert_locked(worker->pool);
    tercio_pool *pool = worker->pool;
    char text[192];

    tercio__pump_worker(worker);
    tercio__at("death: heard to its end");
    worker->died_for_memory = pool->ending < TERCIO__DROPPING && died_for_memory(worker, how);
    if (!worker->goodbye && pool->ending < TERCIO__DROPPING) {
        worker->died = true;
        worker->last_death = *how;
        worker->killed += how->signal == SIGKILL && !worker->struck;
    }
    settle_messages(worker, how);
    tercio__at("death: settled");
    keep_counters(worker);
    reap_arena(worker);
    tercio__at("death: arena reaped");
    if (!worker->alive && !worker->goodbye && pool->ending < TERCIO__DROPPING &&
        ++worker->stillborn >= still_born_limit(how)) {
        tercio__entry entry = {.index = worker->index,
                               .kind = TERCIO_KIND_START,
                               .worker = worker->index,
                               .pid = worker->pid,
                               .code = how->code,
                               .signal = how->signal,
                               .out_of_memory = worker->died_for_memory};
        describe_death(worker, how, text, sizeof text);
        tercio__pool_fail(pool, TERCIO_ESTART, &entry, NULL, NULL, text);
    }
    if (worker->handle >= 0) {
        tercio__set_remove(pool->set, worker->handle);
        tercio__owned_close(worker->handle, pool->fork_generation);
    }
    worker->handle = -1;
    worker->pid = 0;
    worker->told_at = 0;
    worker->state = TERCIO_STATE_NONE;
    pool->n_live--;
    pool->needs_start = true;
    tercio__discard_dead(pool);
    tercio__ring_all(pool);
}

bool tercio__worker_reap(tercio__worker *worker)
{
    tercio__assert_locked(worker->pool);
    tercio_pool *pool = worker->pool;
    tercio__exit how;
    if (worker->state == TERCIO_STATE_NONE || (worker->handle < 0 && !worker->thread_runs))
        return worker->state == TERCIO_STATE_NONE;
    tercio__pump_worker(worker); /* its goodbye, if it left one */
    bool ours = pool->starter->children_are_ours;
    if (worker->family && !worker->goodbye && tercio__bells_wait(&worker->handle, 1, 1, NULL) == 1) {
        /* What it started goes with it. A group is its own only while its number is. */
        if (ours)
            tercio__process_kill_group(worker->pid);
        tercio__family_kill(worker->family, worker->pid);
        worker->family = 0;
    }
    if (pool->starter->reap(worker, &how))
        return false;
    tercio__worker_gone(worker, &how);
    return true;
}
