/* SPDX-License-Identifier: MIT
 *
 * Which worker gets which message. Each worker gets its first before any gets a second, and so on up to the run's
 * depth. What was queued ahead of a worker that is slow can be taken back; order.c says when, and for whom.
 */
#include "pool/dispatch.h"

#include <stdlib.h>

#include "channel/channel.h"
#include "channel/layout.h"
#include "plat/plat.h"
#include "pool/message.h"
#include "pool/order.h"
#include "pool/pending.h"
#include "pool/wake.h"
#include "state/pool.h"
#include "tercio.h"

/* A message that a worker is looked for. */
typedef struct {
    uint64_t turn, bytes;
    bool anywhere; /* whatever the order of the run */
} offer;

/* Messages that it has yet to answer, as far as matters here: a worker that has answered all is about to pass them. */
static inline uint64_t owed_by(const tercio__worker *worker)
{
    return tercio__has_answered_all(worker) ? 0 : tercio__load_of(worker);
}

static inline bool is_free(const tercio__worker *worker)
{
    return owed_by(worker) == 0;
}

/* Nothing of a run with an order is queued before a worker has done one message of it: what one that is new, or slow from
 * the beginning, would be handed ahead is what the others pass. */
static inline uint64_t depth_at(const tercio__worker *worker, const tercio_run *run)
{
    return run->passed[worker->index] || !tercio__is_ordered(run) || run->options.in_turn ? run->depth : 1;
}

static inline bool has_place(const tercio__worker *worker, const tercio_run *run, uint64_t load)
{
    return load < depth_at(worker, run) || is_free(worker);
}

static inline bool can_take(const tercio__worker *worker, const tercio_run *run, const offer *given)
{
    return tercio__accepts(worker) && has_place(worker, run, tercio__load_of(worker)) &&
           tercio__sender_has_room(&worker->sender, given->bytes) &&
           (given->anywhere || run->n_pending == 0 || tercio__may_have(worker, run, given->turn));
}

/* ---- Choosing --------------------------------------------------------------------------------------------------- */

/* One message follows another, each is quick, and there are more workers than CPUs. */
static bool is_flood(tercio_run *run, uint32_t n_items)
{
    return run->more && tercio__may_wake_later(run, n_items);
}

/* Of those that sleep: never the same one twice in a row, unless it has nothing else. */
static bool may_be_next(const tercio__worker *worker, const tercio_run *run, const offer *given)
{
    return !worker->is_hot && can_take(worker, run, given) &&
           (worker != worker->pool->last_in_turn || tercio__has_done_all(worker));
}

/* In a flood, whoever has none gets the next one; then a worker that is kept awake (wake.c) and has done all that it
 * had; then those that sleep, in turn. So neighbours, which may wait for each other, are never behind one another in one
 * ring. */
static tercio__worker *pick_in_turn(tercio_run *run, const offer *given)
{
    tercio_pool *pool = run->pool;
    unsigned n = pool->n_workers;
    for (int empty = !pool->is_spread; empty >= 0; empty--) {
        tercio__worker *hot = empty ? NULL : tercio__take_hot(pool);
        if (hot) /* where it is full as far as we know, a look at what it has said makes room */
            return can_take(hot, run, given) ? hot : NULL;
        for (unsigned i = 0; i < n; i++) {
            tercio__worker *worker = &pool->workers[pool->turn];
            pool->turn = pool->turn + 1 < n ? pool->turn + 1 : 0;
            if (!may_be_next(worker, run, given) || (empty && owed_by(worker) > 0))
                continue;
            pool->last_in_turn = worker;
            return worker;
        }
        pool->is_spread |= empty;
    }
    return NULL;
}

static bool has_room_in_turn(const tercio_run *run, const offer *given)
{
    const tercio_pool *pool = run->pool;
    const tercio__worker *hot = pool->is_spread ? tercio__next_hot(pool) : NULL;
    if (hot)
        return can_take(hot, run, given);
    for (unsigned i = 0; i < pool->n_workers; i++)
        if (may_be_next(&pool->workers[i], run, given))
            return true;
    hot = pool->is_spread ? NULL : tercio__next_hot(pool); /* where nobody else has room */
    return hot && can_take(hot, run, given);
}

static tercio__worker *pick_least(tercio_run *run, const offer *given)
{
    tercio_pool *pool = run->pool;
    tercio__worker *best = NULL;
    uint64_t least = UINT64_MAX;
    unsigned n = pool->n_workers;
    for (unsigned i = 0; i < n; i++) {
        unsigned at = pool->turn + i < n ? pool->turn + i : pool->turn + i - n;
        tercio__worker *worker = &pool->workers[at];
        uint64_t load = owed_by(worker);
        if (load >= least || !can_take(worker, run, given))
            continue;
        best = worker;
        least = load;
        if (load <= pool->level)
            break;
    }
    if (best) {
        pool->turn = best->index + 1 < n ? best->index + 1 : 0;
        pool->level = (unsigned)least;
    }
    return best;
}

static tercio__worker *pick(tercio_run *run, const offer *given, bool flood)
{
    tercio_pool *pool = run->pool;
    if (run->options.in_turn) {
        tercio__worker *worker = &pool->workers[given->turn % pool->n_workers];
        return can_take(worker, run, given) ? worker : NULL;
    }
    if (flood)
        return pick_in_turn(run, given);
    if (run->options.notify || run->face) { /* the worker that was busy last may still be looking: no wake */
        tercio__worker *worker = &pool->workers[pool->last_active];
        if (is_free(worker) && can_take(worker, run, given))
            return worker;
    }
    return pick_least(run, given);
}

/* As many items are under way, or bytes of large parts, as there may be. */
static bool is_at_limit(const tercio_run *run, uint64_t n_items)
{
    const tercio_pool *pool = run->pool;
    return (run->options.max_active && run->n_active && run->n_active + n_items > run->options.max_active) ||
           (pool->lent_bytes > pool->page->arena_bytes && run->n_chunks);
}

bool tercio__may_queue(const tercio_run *run, uint32_t n_items)
{
    return run->queues && run->n_pending < run->pool->n_workers && !is_at_limit(run, n_items);
}

bool tercio__has_room(tercio_run *run)
{
    tercio__assert_locked(run->pool);
    tercio_pool *pool = run->pool;
    if (run->stopped || !tercio__takes_work(pool))
        return true; /* push will say so */
    /* What was refused last is what will be offered next; any other message is taken to be small. */
    uint32_t items = run->refused_items ? run->refused_items : 1;
    offer given = {.turn = run->n_messages, .bytes = run->refused_bytes ? run->refused_bytes : 64};
    if (is_at_limit(run, items))
        return false;
    if (tercio__may_queue(run, items))
        return true;
    if (run->options.in_turn)
        return can_take(&pool->workers[run->n_messages % pool->n_workers], run, &given);
    if (is_flood(run, items))
        return has_room_in_turn(run, &given);
    for (unsigned i = 0; i < pool->n_workers; i++)
        if (can_take(&pool->workers[i], run, &given))
            return true;
    return false;
}

/* ---- Sending ---------------------------------------------------------------------------------------------------- */

static void send(tercio__worker *worker, const tercio__chunk *like, const tercio__letter *letter)
{
    uint64_t end, sequence = worker->sender.tail;
    tercio__chunk *chunk = &worker->inflight[sequence % TERCIO__SLOTS];
    *chunk = *like;
    chunk->over = chunk->anywhere = false;
    chunk->copy = NULL;
    chunk->next = NULL;
    tercio__keep_mark(chunk);
    chunk->attempts++;
    tercio__sender_put(&worker->sender, letter, &end);
    chunk->ring_end = end;
    worker->pool->last_active = worker->index;
}

static uint32_t flags_of(const tercio_run *run)
{
    uint32_t flags = run->timeout_ns || run->pool->options.observe ? TERCIO__TIMED : 0;
    return tercio__is_quiet(run) ? flags | TERCIO__QUIET : flags;
}

static void describe(const tercio__chunk *chunk, tercio__letter *letter)
{
    *letter = (tercio__letter){
        .index = chunk->index,
        .cookie = chunk->cookie,
        .n_items = chunk->n_items,
        .skip = chunk->done,
        .n_blocks = chunk->n_blocks,
        .head_in_block = chunk->head_in_block,
        .flags = flags_of(chunk->run),
        .context = chunk->context ? chunk->context->id : 0,
    };
    if (chunk->context)
        letter->context_block = chunk->context->block;
}

enum { BLOCKS_ON_STACK = 16 };

int tercio__dispatch(tercio_run *run, const tercio_message *message, tercio__worker **wake)
{
    tercio__assert_locked(run->pool);
    tercio_pool *pool = run->pool;
    tercio_block few[BLOCKS_ON_STACK], *blocks = few;
    uint64_t bytes = tercio__ring_bytes_for(pool, message);

    if (bytes > pool->page->ring_bytes / 2)
        return TERCIO_ETOOBIG; /* tens of thousands of large parts in one message */
    run->refused_bytes = bytes;
    run->refused_items = message->n_items;
    if (is_at_limit(run, message->n_items))
        return 0;
    run->more = message->size > offsetof(tercio_message, more) && message->more;
    offer given = {.turn = run->n_messages, .bytes = bytes};
    tercio__worker *worker = pick(run, &given, is_flood(run, message->n_items));
    if (worker == NULL)
        return 0;

    tercio__chunk chunk;
    tercio__letter letter;
    tercio__message_begin(run, message, &chunk);
    if (message->n_parts > 1 || bytes < message->parts[0].size) {
        if (message->n_parts > BLOCKS_ON_STACK && (blocks = malloc(message->n_parts * sizeof *blocks)) == NULL)
            return TERCIO_ENOMEM;
        int error = tercio__place_parts(pool, message, &chunk, blocks);
        if (error) {
            if (blocks != few)
                free(blocks);
            return error;
        }
    }
    run->refused_bytes = 0;
    run->refused_items = 0;
    describe(&chunk, &letter);
    letter.blocks = blocks;
    letter.head = message->parts[0];
    tercio__message_count(&chunk);
    send(worker, &chunk, &letter);
    if (blocks != few)
        free(blocks);
    *wake = worker;
    return 1;
}

/* ---- Waiting in the pool ----------------------------------------------------------------------------------------- */

static bool has_place_anywhere(const tercio_run *run)
{
    for (unsigned i = 0; i < run->pool->n_workers; i++) {
        const tercio__worker *worker = &run->pool->workers[i];
        if (tercio__accepts(worker) && has_place(worker, run, tercio__load_of(worker)))
            return true;
    }
    return false;
}

void tercio__dispatch_pending(tercio_pool *pool)
{
    tercio__assert_locked(pool);
    tercio__chunk **at = &pool->pending;
    const tercio_run *full = NULL; /* no worker has a place for it */
    while (*at) {
        tercio__chunk *chunk = *at;
        tercio__letter letter;
        if (chunk->run == full) {
            at = &chunk->next;
            continue;
        }
        describe(chunk, &letter);
        letter.blocks = (const tercio_block *)(const void *)chunk->copy;
        letter.head = (tercio_bytes){chunk->copy + chunk->n_blocks * sizeof(tercio_block), chunk->head_size};
        tercio_run *run = chunk->run;
        offer given = {chunk->turn, tercio__letter_bytes(&letter), chunk->anywhere};
        tercio__worker *worker = pick(run, &given, false);
        if (worker == NULL && !tercio__is_ordered(run))
            return; /* in order: what is behind it waits as well */
        if (worker == NULL && !has_place_anywhere(run)) {
            full = run;
        } else if (worker == NULL && !given.anywhere && !tercio__is_worth_waiting(pool, chunk)) {
            given.anywhere = true;
            worker = pick(run, &given, false);
        }
        if (worker == NULL) { /* it waits for a certain worker, and the others are there for what is behind it */
            at = &chunk->next;
            continue;
        }
        send(worker, chunk, &letter);
        if (run->timeout_ns)
            tercio__bell_ring(pool->supervisor_bell); /* it sets its timer */
        tercio__unlink_pending(pool, at, run);
        tercio__wake(worker);
    }
}
