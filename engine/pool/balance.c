/* SPDX-License-Identifier: MIT
 *
 * Moves messages that were queued ahead of a loaded worker to one that has nothing. order.c says which of them may go.
 */
#include "pool/balance.h"

#include "channel/channel.h"
#include "channel/layout.h"
#include "pool/dispatch.h"
#include "pool/order.h"
#include "pool/pending.h"
#include "pool/wake.h"
#include "state/pool.h"
#include "tercio.h"

/* The message that the worker runs, or will run next. */
static uint64_t front_of(const tercio__worker *worker)
{
    uint64_t s = tercio__sender_passed(&worker->sender);
    while (s < worker->sender.tail && worker->inflight[s % TERCIO__SLOTS].over)
        s++;
    return s;
}

/* Where input is about to come, that will reach an idle worker sooner than what was queued for another. */
static bool may_move(const tercio_run *run, bool more_comes)
{
    return !run->options.in_turn && !run->is_strict && (run->ended || run->options.notify || !more_comes);
}

static bool may_move_any(const tercio_pool *pool, bool more_comes)
{
    for (const tercio_run *run = pool->runs; run; run = run->next)
        if (run->n_chunks && may_move(run, more_comes))
            return true;
    return false;
}

static bool is_movable(const tercio__chunk *chunk, bool more_comes)
{
    return !chunk->over && chunk->run && may_move(chunk->run, more_comes);
}

static bool goes_on_at(const tercio__worker *idle, const tercio__chunk *chunk)
{
    return !tercio__is_ordered(chunk->run) || tercio__keeps_order(idle, chunk->run, chunk->turn);
}

/* How many messages of a worker's ring may go to one that is idle. Never the one in front: a worker that is still
 * starting, or just wakes, is to get its first one (tasks may wait for each other). */
static uint64_t count_movable(tercio__worker *loaded, const tercio__worker *idle, bool more_comes)
{
    uint64_t n = 0, others = 0;
    for (uint64_t s = loaded->sender.tail, front = front_of(loaded); s-- > front + 1;) {
        const tercio__chunk *chunk = &loaded->inflight[s % TERCIO__SLOTS];
        if (!is_movable(chunk, more_comes))
            continue;
        n += goes_on_at(idle, chunk);
        others += !goes_on_at(idle, chunk);
    }
    return n || others == 0 || !tercio__is_long(loaded) ? n : others;
}

/* Half of what may go, from the end. Returns: whether something went to pending. */
static bool take_ahead(tercio__worker *loaded, const tercio__worker *idle, uint64_t n, bool more_comes)
{
    bool taken = false, anywhere = tercio__is_long(loaded);
    uint64_t left = (n + 1) / 2;
    for (uint64_t s = loaded->sender.tail, front = front_of(loaded); left > 0 && s-- > front + 1;) {
        tercio__chunk *chunk = &loaded->inflight[s % TERCIO__SLOTS];
        if (!is_movable(chunk, more_comes) || !(anywhere || goes_on_at(idle, chunk)))
            continue;
        if (!tercio__sender_revoke(&loaded->sender, s))
            break; /* and all before it are taken too */
        chunk->attempts--;
        chunk->anywhere = !goes_on_at(idle, chunk);
        if (tercio__requeue(loaded, s, false))
            break;
        left--;
        taken = true;
    }
    return taken;
}

void tercio__balance(tercio_pool *pool, bool more_comes)
{
    tercio__assert_locked(pool);
    if (!may_move_any(pool, more_comes) || (pool->pending && !tercio__is_ordered(pool->pending->run)))
        return;
    for (unsigned i = 0; i < pool->n_workers; i++) {
        tercio__worker *idle = &pool->workers[i], *loaded = NULL;
        if (!tercio__accepts(idle) || !idle->alive || tercio__load_of(idle) > 0)
            continue;
        uint64_t most = 0;
        for (unsigned j = 0; j < pool->n_workers; j++) {
            tercio__worker *worker = &pool->workers[j];
            bool has_more = tercio__accepts(worker) && tercio__load_of(worker) > most + 1;
            uint64_t n = has_more ? count_movable(worker, idle, more_comes) : 0;
            if (n > most) {
                most = n;
                loaded = worker;
            }
        }
        if (loaded == NULL || !take_ahead(loaded, idle, most, more_comes))
            continue;
        tercio__wake(loaded); /* so that it passes them, and their room comes back */
        tercio__dispatch_pending(pool);
    }
}
