/* SPDX-License-Identifier: MIT
 *
 * How many messages are queued ahead of each worker: measured from the time that an item takes.
 */
#include "pool/depth.h"

#include <stdatomic.h>

#include "channel/layout.h"
#include "state/pool.h"
#include "tercio.h"

enum { DEPTH_AT_FIRST = 2 };
static const double ahead_ns = 1e6; /* work queued before each worker: enough to cover a wake, little to take back */

/* Of messages that take so long none is queued before a worker, since the next one that is free shall have it: beside them
 * a wake is little. Unless they are so large that to hand one in takes long, too. */
static const double long_ns = 4e6;

static const uint64_t large = 256 << 10;

/* Where none is queued before a worker, the next ones may wait on pending: if the caller does other things between its
 * calls, or hands in large ones. The supervisor wakes for each, so they have to be worth that. */
static const double worth_queuing_ns = 2e6;

void tercio__measure(tercio__worker *worker, const tercio__chunk *chunk)
{
    tercio__assert_locked(worker->pool);
    tercio_run *run = chunk->run;
    tercio__channel *words = worker->sender.map.words;
    uint64_t done = atomic_load_explicit(&words->n_done, memory_order_relaxed);
    uint64_t work = atomic_load_explicit(&words->ns_work, memory_order_relaxed);
    if (done <= worker->seen_done || work <= worker->seen_work)
        return;
    double mean = (double)(work - worker->seen_work) / (double)(done - worker->seen_done);
    worker->seen_done = done;
    worker->seen_work = work;
    run->item_ns = run->item_ns > 0 ? run->item_ns * 0.75 + mean * 0.25 : mean;
    double message_ns = run->item_ns * chunk->n_items + 1;
    if (tercio__is_ordered(run) && !run->options.in_turn) {
        bool is_large = chunk->lent >= large, alone = run->is_strict || (message_ns >= long_ns && !is_large);
        run->queues = alone && message_ns >= worth_queuing_ns && (is_large || !run->options.low_water);
        if (alone) {
            run->depth = 1;
            return;
        }
    }
    double depth = ahead_ns / message_ns;
    /* Grow step by step: the first measures are of cold caches. */
    uint32_t most = run->depth * 4 < TERCIO__SLOTS - 1 ? run->depth * 4 : TERCIO__SLOTS - 1;
    run->depth = depth < DEPTH_AT_FIRST ? DEPTH_AT_FIRST : depth > most ? most : (uint32_t)depth;
}
