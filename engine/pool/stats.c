/* SPDX-License-Identifier: MIT
 *
 * Counters and times of the workers, for people: tercio_get_stats, tercio_get_longest, tercio_worker_pids. A replacement
 * continues the counters of the worker before it.
 */
#include "pool/stats.h"

#include <stdatomic.h>
#include <string.h>

#include "base/abi.h"
#include "base/atomics.h"
#include "channel/channel.h"
#include "channel/layout.h"
#include "state/pool.h"
#include "tercio.h"

/* Puts what a worker's channel tells into a list that is sorted and of n entries. */
static void merge(tercio__past *past, const tercio__channel *words)
{
    for (uint32_t i = 0; i < TERCIO__TOP; i++) {
        const tercio__longest *entry = &words->longest[i];
        uint64_t ns = LOAD(entry->ns, relaxed);
        uint32_t text = LOAD(entry->text, relaxed), at = TERCIO__TOP;
        while (at > 0 && past[at - 1].ns < ns)
            at--;
        if (ns == 0 || at == TERCIO__TOP)
            continue;
        memmove(&past[at + 1], &past[at], (TERCIO__TOP - 1 - at) * sizeof *past);
        past[at] = (tercio__past){.ns = ns, .index = LOAD(entry->index, relaxed)};
        uint64_t copy[TERCIO_LONGEST_TEXT / 8] = {0};
        if (text >= 1 && text <= TERCIO__TOP) /* a worker may have written anything */
            for (size_t j = 0; j < TERCIO_LONGEST_TEXT / 8; j++)
                copy[j] = LOAD(words->longest_text[text - 1][j], relaxed);
        memcpy(past[at].text, copy, sizeof copy);
        past[at].text[sizeof past[at].text - 1] = 0;
    }
}

void tercio__keep_longest(tercio__worker *worker)
{
    tercio__assert_locked(worker->pool);
    merge(worker->past_longest, worker->sender.map.words);
}

int tercio_get_longest(tercio_pool *pool, unsigned index, tercio_longest *longest, size_t n)
{
    if (pool == NULL || index >= pool->n_workers || (n && tercio__struct_fits(longest, sizeof longest->size)))
        return TERCIO_EINVAL;
    if (!tercio__is_ours(pool))
        return TERCIO_EFORKED;
    size_t size = n ? longest->size : 0, filled = 0;
    tercio__past all[TERCIO__TOP];
    tercio__lock(pool);
    const tercio__worker *worker = &pool->workers[index];
    memcpy(all, worker->past_longest, sizeof all);
    if (worker->state != TERCIO_STATE_NONE && worker->sender.map.words)
        merge(all, worker->sender.map.words);
    tercio__unlock(pool);
    for (; filled < n && filled < TERCIO__TOP && all[filled].ns; filled++) {
        tercio_longest one = {.index = all[filled].index, .seconds = (double)all[filled].ns * 1e-9};
        memcpy(one.text, all[filled].text, sizeof one.text);
        memcpy((char *)longest + filled * size, &size, sizeof size);
        tercio__struct_write((char *)longest + filled * size, &one, sizeof one);
    }
    return (int)filled;
}

static double seconds(const tercio__worker *worker, unsigned which, const _Atomic uint64_t *now)
{
    uint64_t ns = worker->past[which];
    if (now)
        ns += atomic_load_explicit(now, memory_order_relaxed);
    return (double)ns * 1e-9;
}

static void fill_stats(const tercio__worker *worker, tercio_stats *stats)
{
    bool lives = worker->state != TERCIO_STATE_NONE && worker->sender.map.words;
    const tercio__channel *words = lives ? worker->sender.map.words : NULL;
    stats->tasks = worker->past_tasks + (words ? atomic_load_explicit(&words->n_done, memory_order_relaxed) : 0);
    stats->restarts = worker->restarts;
    stats->start = seconds(worker, 0, words ? &words->ns_start : NULL);
    stats->init = seconds(worker, 1, words ? &words->ns_init : NULL);
    stats->wait = seconds(worker, 2, words ? &words->ns_wait : NULL);
    stats->work = seconds(worker, 3, words ? &words->ns_work : NULL);
    stats->exit = seconds(worker, 4, words ? &words->ns_exit : NULL);
    stats->pid = worker->pid;
    stats->state = words ? (int)atomic_load_explicit(&words->phase, memory_order_relaxed) : TERCIO_STATE_NONE;
    stats->died = worker->died;
    stats->died_signal = worker->last_death.signal;
    stats->died_code = worker->last_death.code;
    stats->killed = worker->killed;
    stats->cut_short = worker->cut_short;
    stats->running = 0;
    uint64_t sequence = tercio__sender_passed(&worker->sender);
    if (stats->state == TERCIO_STATE_WORK && sequence < worker->sender.tail) {
        const tercio__chunk *chunk = &worker->inflight[sequence % TERCIO__SLOTS];
        stats->running = chunk->index + chunk->done;
    }
}

int tercio_get_stats(tercio_pool *pool, tercio_stats *stats, size_t n)
{
    if (pool == NULL || (n && tercio__struct_fits(stats, sizeof stats->size)))
        return TERCIO_EINVAL;
    if (!tercio__is_ours(pool))
        return TERCIO_EFORKED;
    size_t size = n ? stats->size : 0;
    tercio__lock(pool);
    for (size_t i = 0; i < n && i < pool->n_workers; i++) {
        tercio_stats one = {0};
        if (pool->workers[i].sender.map.words)
            fill_stats(&pool->workers[i], &one);
        memcpy((char *)stats + i * size, &size, sizeof size);
        tercio__struct_write((char *)stats + i * size, &one, sizeof one);
    }
    tercio__unlock(pool);
    return (int)pool->n_workers;
}

int tercio_worker_pids(tercio_pool *pool, int *pids, size_t n)
{
    if (pool == NULL || (n && pids == NULL))
        return TERCIO_EINVAL;
    if (!tercio__is_ours(pool))
        return TERCIO_EFORKED;
    tercio__lock(pool);
    for (size_t i = 0; i < n && i < pool->n_workers; i++)
        pids[i] = pool->workers[i].pid;
    tercio__unlock(pool);
    return (int)pool->n_workers;
}
