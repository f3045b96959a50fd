/* SPDX-License-Identifier: MIT
 *
 * Waking workers. A wake costs more than a quick task, and where there are more workers than CPUs it gains nothing,
 * since the workers that are awake have work. So while quick messages are pushed one after another
 * (tercio_message.more), the pool keeps as many workers awake as there are CPUs beside the caller's own: the hot
 * workers. The wakes of the other workers are deferred until the caller stops pushing, and each of them then finds
 * several messages. The messages are already in the rings, so deaths.c handles a death in the meantime like any
 * other. If the caller doesn't say that it has stopped, the supervisor makes up for the deferred wakes after 20 ms.
 */
#include "pool/wake.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "base/fault.h"
#include "channel/layout.h"
#include "plat/plat.h"
#include "state/pool.h"
#include "tercio.h"

/* ns. Of longer messages each is worth a wake at once. */
static const double quick = 50e3;

/* Messages that a worker which is kept awake may be busy while they are handed to others. */
enum { MOST_BUSY = 256, LONGEST_PUT_OFF = 20000000 /* ns */ };

bool tercio__is_asleep(const tercio__worker *worker)
{
    return atomic_load_explicit(&worker->sender.map.words->asleep, memory_order_relaxed) != TERCIO__AWAKE;
}

static void wake(tercio__channel *words)
{
    if (atomic_exchange_explicit(&words->asleep, TERCIO__AWAKE, memory_order_seq_cst) != TERCIO__AWAKE) {
        tercio__at("wake: owed");
        atomic_fetch_add_explicit(&words->bell, 1, memory_order_seq_cst);
        tercio__word_wake(&words->bell);
        tercio__at("wake: woken");
    }
}

void tercio__wake(const tercio__worker *worker)
{
    atomic_thread_fence(memory_order_seq_cst); /* B2: what was published comes before this look */
    if (tercio__is_asleep(worker))
        wake(worker->sender.map.words);
}

void tercio__wake_for_room(const tercio__worker *worker)
{
    tercio__channel *words = worker->sender.map.words;
    atomic_thread_fence(memory_order_seq_cst); /* B2 */
    if (atomic_load_explicit(&words->asleep, memory_order_relaxed) == TERCIO__ASLEEP_FOR_ROOM)
        wake(words);
}

bool tercio__is_crowded(tercio_pool *pool)
{
    if (!pool->counted_cpus) {
        unsigned cpus = tercio__cpus_usable();
        pool->counted_cpus = true;
        if (cpus < pool->n_workers) {
            pool->n_hot = cpus > 1 ? cpus - 1 : 1;
            pool->hot = calloc(pool->n_hot, sizeof(tercio__worker *));
        }
    }
    return pool->hot != NULL;
}

bool tercio__may_wake_later(tercio_run *run, uint32_t n_items)
{
    tercio__assert_locked(run->pool);
    double work = run->item_ns * n_items;
    return work > 0 && work <= quick && tercio__is_quiet(run) && !run->timeout_ns && tercio__is_crowded(run->pool);
}

const tercio__worker *tercio__next_hot(const tercio_pool *pool)
{
    tercio__assert_locked(pool);
    const tercio__worker *worker = pool->hot[pool->hot_at];
    return worker && tercio__has_done_all(worker) ? worker : NULL;
}

tercio__worker *tercio__take_hot(tercio_pool *pool)
{
    tercio__assert_locked(pool);
    tercio__worker **place = &pool->hot[pool->hot_at], *worker = *place;
    if (worker == NULL)
        return NULL;
    if (++pool->hot_at == pool->n_hot)
        pool->hot_at = 0;
    if (tercio__has_done_all(worker)) {
        worker->n_busy = 0;
        return worker;
    }
    if (++worker->n_busy == MOST_BUSY) { /* it is slow, or something holds it up: another one in its place */
        worker->is_hot = false;
        *place = NULL;
    }
    return NULL;
}

bool tercio__wake_later(tercio_run *run, tercio__worker *worker, uint32_t n_items)
{
    tercio__assert_locked(run->pool);
    tercio_pool *pool = run->pool;
    if (!tercio__may_wake_later(run, n_items))
        return false;
    if (worker->is_hot)
        return false;
    for (unsigned i = 0; i < pool->n_hot; i++)
        if (pool->hot[i] == NULL) {
            pool->hot[i] = worker;
            worker->is_hot = true;
            worker->n_busy = 0;
            return false;
        }
    worker->owed = true;
    if (pool->owed_since == 0) {
        pool->owed_since = tercio__now();
        if (pool->look_at_owed == 0) { /* else a row before this one has had the timer set */
            pool->look_at_owed = pool->owed_since + LONGEST_PUT_OFF;
            tercio__bell_ring(pool->supervisor_bell);
        }
    }
    return true;
}

void tercio__wake_owed(tercio_pool *pool)
{
    tercio__assert_locked(pool);
    if (pool->owed_since == 0)
        return;
    pool->owed_since = 0;
    for (unsigned i = 0; i < pool->n_workers; i++) {
        tercio__worker *worker = &pool->workers[i];
        if (worker->owed && worker->sender.map.words)
            tercio__wake(worker);
        worker->owed = false;
    }
}

uint64_t tercio__check_owed(tercio_pool *pool)
{
    tercio__assert_locked(pool);
    if (pool->look_at_owed == 0)
        return 0;
    uint64_t now = tercio__now();
    if (now < pool->look_at_owed)
        return pool->look_at_owed;
    if (pool->owed_since && now - pool->owed_since < LONGEST_PUT_OFF)
        return pool->look_at_owed = pool->owed_since + LONGEST_PUT_OFF;
    tercio__wake_owed(pool);
    return pool->look_at_owed = 0;
}
