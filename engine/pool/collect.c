/* SPDX-License-Identifier: MIT
 *
 * Moves answers from the workers' rings to the inboxes of runs. A caller that waits for results does this in its own
 * thread; while no caller waits, the supervisor does.
 */
#include "pool/collect.h"

#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "base/fault.h"
#include "channel/channel.h"
#include "channel/layout.h"
#include "memory/views.h"
#include "plat/plat.h"
#include "pool/balance.h"
#include "pool/depth.h"
#include "pool/dispatch.h"
#include "pool/failure.h"
#include "pool/garbage.h"
#include "pool/inbox.h"
#include "pool/message.h"
#include "pool/notify.h"
#include "pool/pending.h"
#include "pool/purge.h"
#include "pool/wake.h"
#include "state/pool.h"
#include "tercio.h"

/* ---- Records ----------------------------------------------------------------------------------------------------- */

static void answer_abort(tercio__worker *worker, tercio__chunk *chunk)
{
    int status = chunk->abort == TERCIO__ABORT_TIMEOUT ? TERCIO_ETIMEDOUT : TERCIO_ECANCELED;
    tercio__answer(chunk, (tercio__entry){.status = status, .worker = worker->index, .pid = worker->pid},
                   tercio_error_text(status));
}

/* The answer of an item that was interrupted: who cancelled it was told so, and what fails because it was interrupted
 * is no failure of its own. What succeeded just after its time was up may count. */
static bool is_overruled(const tercio__chunk *chunk, const tercio__record *record)
{
    return chunk->abort_item == chunk->done &&
           (chunk->abort == TERCIO__ABORT_CANCEL || (chunk->abort == TERCIO__ABORT_TIMEOUT && record->status));
}

static void take_blocks(tercio_pool *pool, const tercio_block *blocks, uint32_t n)
{
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < n; i++)
        bytes += blocks[i].size;
    atomic_fetch_add_explicit(&pool->blocks_out, n, memory_order_relaxed);
    tercio__note_moved(pool, bytes);
}

/* A good answer of a tercio_map, as large as it should be, needs nobody to look at it. */
static bool lands(const tercio_run *run, const tercio__record *record)
{
    return run->landing.wanted && record->status == 0 && record->n_blocks == 0 &&
           (run->landing.size == 0 || record->payload == run->landing.size);
}

static void count_answered(tercio__chunk *chunk, uint32_t n)
{
    tercio_run *run = chunk->run;
    chunk->done += n;
    chunk->attempts = 1;
    run->n_active -= n;
    run->n_answered += n;
    if (chunk->done == chunk->n_items)
        tercio__unhold(run->pool, chunk);
}

static void take_result(tercio__worker *worker, const tercio__record *record, const unsigned char *bytes)
{
    tercio_pool *pool = worker->pool;
    tercio__sender *sender = &worker->sender;
    if (record->sequence - sender->reclaimed >= sender->tail - sender->reclaimed)
        return; /* no such message: a worker gone mad */
    tercio__chunk *chunk = &worker->inflight[record->sequence % TERCIO__SLOTS];
    const tercio_block *blocks = (const tercio_block *)(const void *)bytes;
    const unsigned char *payload = bytes + record->n_blocks * sizeof(tercio_block);
    size_t size = record->payload == TERCIO__IN_BLOCK ? 0 : record->payload;

    bool unwanted = chunk->over || chunk->run == NULL || record->item != chunk->done || record->item >= chunk->n_items;
    if (unwanted || is_overruled(chunk, record)) {
        for (uint32_t i = 0; i < record->n_blocks; i++)
            tercio__block_return(pool->file, &blocks[i]);
        tercio__garbage(pool, payload, size, 1, 0, true);
        if (!unwanted)
            answer_abort(worker, chunk);
        else if (!chunk->over && record->item == chunk->done && chunk->done < chunk->n_items)
            chunk->done++;
        return;
    }
    tercio_run *run = chunk->run;
    worker->is_awaited |= !tercio__is_quiet(run);
    if (lands(run, record)) {
        if (run->landing.size)
            memcpy(run->landing.out + (chunk->index + chunk->done) * run->landing.size, payload, size);
        run->landing.n++;
        count_answered(chunk, 1);
        return;
    }
    tercio__entry entry = {
        .index = chunk->index + chunk->done,
        .cookie = chunk->cookie,
        .status = record->status,
        .code = record->code,
        .kind = TERCIO_KIND_RESULT,
        .worker = worker->index,
        .attempts = chunk->attempts,
        .n_blocks = record->n_blocks,
        .out_size = size,
    };
    if (tercio__inbox_add(&run->incoming, &entry, blocks, payload, NULL))
        run->error = TERCIO_ENOMEM;
    else if (record->n_blocks)
        take_blocks(pool, blocks, record->n_blocks);
    run->news = NEWS;
    count_answered(chunk, 1);
    if (record->status && run->options.stop_on_error && !run->stopped) {
        run->stopped = true;
        tercio__drop_pending(pool, run);
        tercio__take_back(pool, run);
    }
}

/* Short records in a row go into one entry, where who asked for the run can take it. Returns: how many; 0: they have to
 * be looked at one by one. */
static uint32_t take_row(tercio__worker *worker, const tercio__record *record, const unsigned char *bytes)
{
    tercio__sender *sender = &worker->sender;
    if (record->sequence - sender->reclaimed >= sender->tail - sender->reclaimed)
        return 0;
    tercio__chunk *chunk = &worker->inflight[record->sequence % TERCIO__SLOTS];
    tercio_run *run = chunk->run;
    if (chunk->over || run == NULL || !(run->options.rows || run->landing.wanted) || chunk->abort != TERCIO__ABORT_NO ||
        record->item != chunk->done || record->item >= chunk->n_items)
        return 0;
    uint32_t size, n, most = chunk->n_items - chunk->done;
    worker->is_awaited |= !tercio__is_quiet(run);
    if (run->landing.wanted && run->landing.size) {
        unsigned char *out = run->landing.out + (chunk->index + chunk->done) * run->landing.size;
        n = tercio__receiver_land(sender, record, most, out, run->landing.size);
        run->landing.n += n;
        if (n)
            count_answered(chunk, n);
        return n;
    }
    n = tercio__receiver_row(sender, record, most, &size);
    if (n < 2)
        return 0;
    if (run->landing.wanted) {
        run->landing.n += n;
        count_answered(chunk, n);
        tercio__receiver_pass_row(sender, n, size);
        return n;
    }
    tercio__entry entry = {
        .index = chunk->index + chunk->done,
        .cookie = chunk->cookie,
        .kind = TERCIO_KIND_RESULT,
        .worker = worker->index,
        .attempts = 1,
        .n_items = n,
        .out_size = size,
    };
    if (tercio__inbox_add(&run->incoming, &entry, NULL, bytes - sizeof(tercio__short), NULL))
        run->error = TERCIO_ENOMEM;
    run->news = NEWS;
    count_answered(chunk, n);
    tercio__receiver_pass_row(sender, n, size);
    return n;
}

/* What a worker says as it comes or goes is read when its memory is no more: what was too large for the ring is copied
 * out of its block at once. Returns: where its bytes are. */
static const void *take_whole(tercio_pool *pool, tercio__entry *entry, const tercio_block *blocks, const void *payload,
                              tercio_view *view)
{
    if (entry->n_blocks != 1 || entry->out_size || blocks->size > UINT32_MAX / 2 || /* more than an entry holds */
        tercio__view_open(pool->file, blocks, view))
        return payload;
    entry->n_blocks = 0;
    entry->out_size = view->size;
    return view->data;
}

static void take_record(tercio__worker *worker, const tercio__record *record, const unsigned char *bytes)
{
    tercio_pool *pool = worker->pool;
    const tercio_block *blocks = (const tercio_block *)(const void *)bytes;
    const unsigned char *payload = bytes + record->n_blocks * sizeof(tercio_block);
    const void *words;
    tercio_view view = {0};
    tercio__entry entry = {
        .index = worker->index,
        .status = record->status,
        .code = record->code,
        .kind = record->kind,
        .worker = worker->index,
        .pid = worker->pid,
        .n_blocks = record->n_blocks,
        .out_size = record->payload == TERCIO__IN_BLOCK ? 0 : record->payload,
    };
    switch (record->kind) {
    case TERCIO__REC_RESULT:
    case TERCIO__REC_SHORT:
        take_result(worker, record, bytes);
        break;
    case TERCIO__REC_ALIVE:
        worker->alive = true;
        worker->stillborn = 0;
        break;
    case TERCIO__REC_GOODBYE:
        worker->goodbye = true;
        break;
    case TERCIO__REC_EXIT:
        words = take_whole(pool, &entry, blocks, payload, &view);
        (void)tercio__inbox_add(&pool->exits, &entry, blocks, words, NULL);
        tercio__view_close(&view);
        break;
    case TERCIO__REC_START:
    case TERCIO__REC_INIT:
        words = take_whole(pool, &entry, blocks, payload, &view);
        tercio__pool_fail(pool, record->status == TERCIO_ETABLE ? TERCIO_ETABLE : TERCIO_ESTART, &entry, blocks, words,
                          NULL);
        tercio__view_close(&view);
        break;
    default:
        break;
    }
}

/* ---- Slots that workers have passed -------------------------------------------------------------------------------- */

/* A message that its worker left before its end: it was stopped, or one of its items was. */
static void settle_partly_done(tercio__worker *worker, uint64_t sequence)
{
    tercio_pool *pool = worker->pool;
    tercio__chunk *chunk = &worker->inflight[sequence % TERCIO__SLOTS];
    const tercio_block *blocks = (const tercio_block *)(const void *)tercio__sender_bytes(&worker->sender, sequence);

    if (chunk->abort != TERCIO__ABORT_NO && chunk->abort_item == chunk->done && chunk->run &&
        chunk->abort != TERCIO__ABORT_DROP)
        answer_abort(worker, chunk);
    bool wanted = chunk->run && !chunk->run->stopped && tercio__keeps_work(pool) && chunk->abort != TERCIO__ABORT_DROP;
    if (chunk->done < chunk->n_items && wanted) {
        if (chunk->attempts) /* the worker left between two items: it did not begin this one */
            chunk->attempts--;
        if (tercio__requeue(worker, sequence, true) == 0)
            return;
        chunk->run->error = TERCIO_ENOMEM;
    }
    if (chunk->done < chunk->n_items)
        tercio__garbage(pool, (const unsigned char *)(blocks + chunk->n_blocks), chunk->head_size, chunk->n_items,
                        chunk->done + (chunk->abort != TERCIO__ABORT_NO), false);
    tercio__chunk_over(pool, chunk, blocks, worker->index + 1);
}

/* The next message may be its. */
static void note_idle(tercio__worker *worker)
{
    worker->pool->level = 0;
    if (!worker->is_hot)
        worker->pool->is_spread = false;
}

static void reclaim(tercio__worker *worker, uint64_t passed)
{
    tercio__sender *sender = &worker->sender;
    while (sender->reclaimed < passed) {
        uint64_t sequence = sender->reclaimed;
        tercio__chunk *chunk = &worker->inflight[sequence % TERCIO__SLOTS];
        if (!chunk->over) {
            tercio_run *run = chunk->run;
            if (run && chunk->turn >= run->passed[worker->index])
                run->passed[worker->index] = chunk->turn + 1;
            if (run && chunk->done == chunk->n_items) {
                if (passed - sequence == 1)
                    tercio__measure(worker, chunk);
                tercio__chunk_over(worker->pool, chunk,
                                   (const tercio_block *)(const void *)tercio__sender_bytes(sender, sequence),
                                   worker->index + 1);
            } else {
                settle_partly_done(worker, sequence);
            }
        }
        sender->down_freed = chunk->ring_end;
        sender->reclaimed++;
        tercio__at("pump: slot reclaimed");
        if (worker->told_at && worker->told_sequence == sequence)
            worker->told_at = 0;
    }
    tercio_pool *pool = worker->pool;
    uint64_t load = sender->tail - sender->reclaimed;
    if (load < pool->level)
        pool->level = (unsigned)load;
    if (load == 0)
        note_idle(worker);
}

/* ---- The pump ------------------------------------------------------------------------------------------------------- */

void tercio__pump_worker(tercio__worker *worker)
{
    tercio__assert_locked(worker->pool);
    tercio__sender *sender = &worker->sender;
    tercio__record record;
    const unsigned char *bytes;
    bool read = false;
    int error;

    worker->is_awaited = false;
    if (sender->map.words == NULL || worker->state == TERCIO_STATE_NONE || worker->state == TERCIO_STATE_DEAD)
        return;
    /* First where the worker is, then what it said: a slot that it has passed has all of its records before that. */
    uint64_t passed = tercio__sender_passed(sender);
    while ((bytes = tercio__receiver_peek(sender, &record, &error)) != NULL) {
        read = true;
        if (record.kind == TERCIO__REC_SHORT && take_row(worker, &record, bytes))
            continue;
        take_record(worker, &record, bytes);
        tercio__at("pump: record taken");
        tercio__receiver_next(sender, &record);
    }
    if (error && worker->handle >= 0) { /* it writes nonsense: it can't go on */
        worker->struck = true;
        (void)tercio__process_signal(worker->handle, worker->pid, SIGKILL);
    }
    if (read) {
        tercio__receiver_done(sender);
        worker->pool->last_active = worker->index;
        if (tercio__has_answered_all(worker))
            note_idle(worker);
    }
    if (passed > sender->reclaimed)
        reclaim(worker, passed);
    if (read && worker->is_awaited) /* who has its result now may soon have the next task, for a worker that looks */
        tercio__wake(worker);
    else if (read)
        tercio__wake_for_room(worker);
}

void tercio__gather(tercio_pool *pool)
{
    tercio__assert_locked(pool);
    for (unsigned i = 0; i < pool->n_workers; i++)
        tercio__pump_worker(&pool->workers[i]);
    pool->look_at_long = 0;
    if (pool->pending)
        tercio__dispatch_pending(pool);
    tercio__balance(pool, true);
    if (pool->n_dead_ranges)
        tercio__discard_dead(pool);
}

void tercio__pump(tercio_pool *pool)
{
    tercio__assert_locked(pool);
    tercio__gather(pool);
    tercio__tell_callers(pool);
    tercio__tell_host(pool);
}
