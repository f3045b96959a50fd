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
#include "internal.h"

#define LOAD(word, order) atomic_load_explicit(&(word), memory_order_##order)

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
static bool keeps_order(const tercio__worker *worker, const tercio_run *run, uint64_t turn)
{
    return begun_up_to(worker, run) <= turn + 1;
}

static bool is_meant(const tercio__worker *worker, const tercio_run *run, uint64_t turn)
{
    return !run->options.in_turn || turn % worker->pool->n_workers == worker->index;
}

bool tercio__may_have(const tercio__worker *worker, const tercio_run *run, uint64_t turn)
{
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
    for (tercio_run *run = worker->pool->runs; run; run = run->next)
        run->passed[worker->index] = 0;
}

void tercio__insert_pending(tercio_pool *pool, tercio__chunk *chunk)
{
    tercio__chunk **at = &pool->pending, **here = at;
    for (unsigned left = chunk->run->n_pending; *at && left; at = &(*at)->next) {
        if ((*at)->run != chunk->run)
            continue;
        if ((*at)->turn > chunk->turn)
            break;
        left--;
        here = &(*at)->next;
    }
    chunk->next = *here;
    if (chunk->next == NULL)
        pool->pending_end = &chunk->next;
    *here = chunk;
    chunk->run->n_pending += tercio__is_ordered(chunk->run);
}

/* ---- What takes long ---------------------------------------------------------------------------------------------- */

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
static bool is_long(tercio__worker *worker)
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
    tercio_run *run = chunk->run;
    if (run->is_strict)
        return true;
    for (unsigned i = 0; i < pool->n_workers; i++) {
        tercio__worker *worker = &pool->workers[i];
        if (!is_meant(worker, run, chunk->turn))
            continue;
        bool is_replaced = worker->state == TERCIO_STATE_NONE || worker->goodbye;
        if (is_replaced ? tercio__takes_work(pool) : keeps_order(worker, run, chunk->turn) && !is_long(worker))
            return true;
    }
    return false;
}

/* ---- Moving ------------------------------------------------------------------------------------------------------- */

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
    return !tercio__is_ordered(chunk->run) || keeps_order(idle, chunk->run, chunk->turn);
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
    return n || others == 0 || !is_long(loaded) ? n : others;
}

/* Half of what may go, from the end. Returns: whether something went to pending. */
static bool take_ahead(tercio__worker *loaded, const tercio__worker *idle, uint64_t n, bool more_comes)
{
    bool taken = false, anywhere = is_long(loaded);
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
