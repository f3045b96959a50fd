/* SPDX-License-Identifier: MIT
 *
 * Runs: messages in, results out, and the calls in between. The waiting itself is in wait.c.
 */
#include <limits.h>
#include <stdlib.h>
#include <unistd.h>

#include "internal.h"

int tercio__run_check(const tercio_run *run)
{
    if (run == NULL)
        return TERCIO_EINVAL;
    if (run->pool == NULL)
        return TERCIO_ECLOSED;
    return tercio__run_is_ours(run) ? 0 : TERCIO_EFORKED;
}

/* The shortest that a run which is open asks for. */
static void tell_lifespan(tercio_pool *pool)
{
    uint32_t least = 0;
    for (const tercio_run *run = pool->runs; run; run = run->next)
        if (run->options.lifespan && (least == 0 || run->options.lifespan < least))
            least = run->options.lifespan;
    for (unsigned i = 0; i < pool->n_workers; i++)
        if (pool->workers[i].sender.map.words)
            atomic_store_explicit(&pool->workers[i].sender.map.words->lifespan, least, memory_order_relaxed);
}

int tercio_run_open(tercio_pool *pool, const tercio_bytes *context, size_t n_context, const tercio_map_options *options,
                    tercio_run **out)
{
    *out = NULL;
    if (pool == NULL)
        return TERCIO_EINVAL;
    if (!tercio__is_ours(pool))
        return TERCIO_EFORKED;
    tercio_run *run = calloc(1, sizeof *run + pool->n_workers * sizeof *run->passed);
    if (run == NULL)
        return TERCIO_ENOMEM;
    int error = tercio__map_options_read(&run->options, options);
    if (error)
        goto fail;
    run->pool = pool;
    run->fork_generation = pool->fork_generation;
    run->bell = run->waits_on = -1;
    run->timeout_ns = tercio__nanoseconds(run->options.timeout);
    run->is_strict = run->options.strict_order && !run->options.in_turn && tercio__is_ordered(run);
    tercio__lock(pool);
    /* until the first is measured */
    run->depth = run->is_strict || (tercio__is_quiet(run) && tercio__is_crowded(pool)) ? 1 : 2;
    error = pool->ending != TERCIO__OPEN ? TERCIO_ECLOSED : pool->failure;
    if (!error && n_context)
        error = tercio__context_new(pool, context, n_context, &run->context);
    if (!error) {
        run->next = pool->runs;
        if (run->next)
            run->next->previous = run;
        pool->runs = run;
        tell_lifespan(pool);
    }
    tercio__unlock(pool);
    if (error)
        goto fail;
    *out = run;
    return 0;
fail:
    free(run);
    return error;
}

/* ---- In ------------------------------------------------------------------------------------------------------------ */

static int may_push(const tercio_run *run)
{
    const tercio_pool *pool = run->pool;
    if (pool->ending != TERCIO__OPEN)
        return TERCIO_ECLOSED;
    if (run->stopped)
        return TERCIO_ECANCELED;
    return pool->failure;
}

int tercio_push(tercio_run *run, const tercio_message *message, bool wait_in_pool)
{
    int result = tercio__run_check(run);
    if (result)
        return result;
    if (tercio__message_check(message) || message->n_parts == 0 || message->n_items == 0 || run->ended)
        return TERCIO_EINVAL;
    tercio_pool *pool = run->pool;
    tercio__worker *wake = NULL;

    tercio__lock(pool);
    bool exceeds = message->size > offsetof(tercio_message, exceeds) && message->exceeds, full = false;
    run->holds = wait_in_pool;
    result = may_push(run);
    if (result == 0 && wait_in_pool && !exceeds && !tercio__may_hold(pool)) {
        tercio__pump(pool); /* some may be done */
        result = may_push(run);
        full = !tercio__may_hold(pool);
    }
    if (result == 0 && !full && !(wait_in_pool && pool->pending)) {
        result = tercio__dispatch(run, message, &wake);
        if (result == 0) {
            tercio__pump(pool);
            result = may_push(run);
            if (result == 0)
                result = tercio__dispatch(run, message, &wake);
        }
    }
    bool may_wait = wait_in_pool ? !full : tercio__may_queue(run, message->n_items);
    if (result == 0 && may_wait && (result = tercio__defer(run, message)) == 0)
        result = 1;
    bool attended = message->size > offsetof(tercio_message, attended) && message->attended;
    bool more = message->size > offsetof(tercio_message, more) && message->more;
    if (more && wake && tercio__wake_later(run, wake, message->n_items))
        wake = NULL;
    else if (!more)
        tercio__wake_owed(pool);
    if ((run->options.notify && !attended) || run->bell_public || pool->pending)
        tercio__arm_keeper(pool, false);
    if (run->timeout_ns && result == 1)
        tercio__bell_ring(pool->keeper_bell); /* it sets its timer */
    if (wake && pool->method == TERCIO_THREADING) {
        tercio__wake(wake); /* its channel goes when the thread does, and that needs the lock */
        wake = NULL;
    }
    tercio__unlock(pool);
    if (wake)
        tercio__wake(wake);
    return result;
}

enum { PUSHES = 1024 }; /* messages under one lock */

/* Workers that sleep are woken as soon as they have a message (or later), the others are looked at once, at the end. */
int tercio__push_all(tercio_run *run, bool (*next)(void *user, tercio_message *), void (*taken)(void *user), void *user,
                     uint64_t *landed)
{
    int result = tercio__run_check(run), n = 0;
    if (result)
        return result;
    tercio_pool *pool = run->pool;
    tercio__worker *worker = NULL;
    tercio_message message = {.size = sizeof message, .more = true};

    tercio__lock(pool);
    result = may_push(run);
    for (bool pumped = false; result == 0 && n < PUSHES && next(user, &message);) {
        result = tercio__dispatch(run, &message, &worker);
        if (result == 1) {
            taken(user);
            n++;
            if (!tercio__wake_later(run, worker, message.n_items) && tercio__is_asleep(worker))
                tercio__wake(worker);
            result = 0;
        } else if (result == 0 && !pumped) {
            tercio__pump(pool);
            pumped = true;
            result = may_push(run);
        } else if (result == 0 && tercio__may_queue(run, message.n_items)) {
            result = tercio__defer(run, &message);
            if (result == 0) {
                taken(user);
                n++;
            }
        } else {
            break;
        }
    }
    for (unsigned i = 0; i < pool->n_workers && n; i++)
        if (pool->workers[i].sender.map.words && !pool->workers[i].owed)
            tercio__wake(&pool->workers[i]);
    if (n && pool->pending)
        tercio__arm_keeper(pool, false);
    if (n && run->timeout_ns)
        tercio__bell_ring(pool->keeper_bell); /* it sets its timer */
    *landed = run->landing.seen = run->landing.n;
    tercio__unlock(pool);
    return result < 0 ? result : n;
}

int tercio_run_room(tercio_run *run)
{
    int result = tercio__run_check(run);
    if (result)
        return result;
    tercio__lock(run->pool);
    if (!tercio__has_room(run))
        result = 0;
    else if (run->options.max_active == 0 || run->n_active == 0 || run->options.max_active - run->n_active > INT_MAX)
        result = INT_MAX;
    else
        result = (int)(run->options.max_active - run->n_active);
    tercio__unlock(run->pool);
    return result;
}

void tercio_run_end(tercio_run *run)
{
    if (tercio__run_check(run))
        return;
    tercio__lock(run->pool);
    run->ended = true;
    tercio__wake_owed(run->pool);
    if (run->waits || run->n_chunks == 0)
        tercio__run_ring(run);
    tercio__unlock(run->pool);
}

void tercio_run_flush(tercio_run *run)
{
    if (tercio__run_check(run))
        return;
    tercio__lock(run->pool);
    tercio__wake_owed(run->pool);
    tercio__unlock(run->pool);
}

uint64_t tercio_run_done(tercio_run *run)
{
    if (tercio__run_check(run))
        return 0;
    tercio__lock(run->pool);
    tercio__pump(run->pool);
    uint64_t n = run->n_answered;
    tercio__unlock(run->pool);
    return n;
}

void tercio_run_interrupt(tercio_run *run)
{
    if (tercio__run_check(run))
        return;
    tercio__lock(run->pool);
    run->interrupted = true;
    tercio__run_ring(run);
    tercio__unlock(run->pool);
}

void tercio_run_unattended(tercio_run *run)
{
    if (tercio__run_check(run))
        return;
    tercio__lock(run->pool);
    run->news = NEWS; /* also what the host was told of while a caller was inside */
    tercio__tell_host(run->pool);
    tercio__arm_keeper(run->pool, false);
    tercio__unlock(run->pool);
}

double tercio_item_time(tercio_run *run)
{
    if (tercio__run_check(run))
        return 0;
    tercio__lock(run->pool);
    double seconds = run->item_ns * 1e-9;
    tercio__unlock(run->pool);
    return seconds;
}

/* ---- Out ----------------------------------------------------------------------------------------------------------- */

/* What tercio_next says when there is no result. Under the lock. */
static int without_result(const tercio_run *run)
{
    if (run->error)
        return run->error;
    if (run->n_chunks == 0 && (run->ended || run->stopped))
        return 0;
    if (run->pool->failure)
        return run->pool->failure;
    if (run->pool->ending == TERCIO__CLOSING || (run->pool->ending != TERCIO__OPEN && run->n_chunks == 0))
        return TERCIO_ECLOSED;
    return TERCIO_EAGAIN;
}

int tercio__run_next(tercio_run *run, double timeout, tercio_result *result)
{
    if (tercio__inbox_take(&run->current, result))
        return 1;
    int error = tercio__run_check(run);
    if (error)
        return error;
    tercio_pool *pool = run->pool;
    uint64_t deadline = timeout > 0 ? tercio__deadline(timeout) : 0;
    for (;;) {
        tercio__lock(pool);
        if (timeout != 0)
            tercio__wake_owed(pool);
        run->is_inside = true;
        if (tercio__inbox_empty(&run->incoming))
            tercio__pump(pool);
        run->is_inside = false;
        if (!tercio__inbox_empty(&run->incoming)) {
            run->current.first = run->incoming.first;
            run->current.last = run->incoming.last;
            run->incoming = (tercio__inbox){0};
            tercio__unlock(pool);
            return (int)tercio__inbox_take(&run->current, result);
        }
        error = without_result(run);
        if (run->bell_public && error == TERCIO_EAGAIN) /* not before: it is readable as long as there is something */
            tercio__bell_clear(run->bell);
        if (pool->pending || run->options.notify || run->bell_public)
            tercio__arm_keeper(pool, false);
        tercio__unlock(pool);
        if (error != TERCIO_EAGAIN || timeout == 0)
            return error;
        double left = timeout;
        if (deadline) {
            uint64_t now = tercio__now();
            if (now >= deadline)
                return TERCIO_EAGAIN;
            left = (double)(deadline - now) * 1e-9;
        }
        error = tercio__run_wait(run, left, false, NULL);
        if (error && error != TERCIO_EAGAIN)
            return error;
    }
}

int tercio_next(tercio_run *run, double timeout, tercio_result *result)
{
    if (run == NULL || result == NULL)
        return TERCIO_EINVAL;
    if (run->face)
        return tercio__face_next(run, timeout, result);
    if (result->size == sizeof *result)
        return tercio__run_next(run, timeout, result);
    tercio_result whole;
    bool no_rows = result->size < offsetof(tercio_result, n_items) + sizeof result->n_items;
    if (tercio__result_check(result) || (no_rows && run->options.rows))
        return TERCIO_EINVAL;
    int found = tercio__run_next(run, timeout, &whole);
    if (found == 1)
        tercio__result_write(result, &whole);
    return found;
}

bool tercio_row_next(tercio_bytes *row, tercio_bytes *answer)
{
    return row && answer && tercio__row_next(row, answer);
}

void tercio_release(tercio_run *run, tercio_result *result)
{
    if (run->face)
        tercio__face_release(run, result);
    if (result->internal == NULL)
        return;
    if (tercio__run_is_ours(run))
        tercio__return_blocks(run->pool, result);
    tercio__inbox_release(&run->current, result);
}

int tercio_take(tercio_run *run, const tercio_block *block, tercio_view *view)
{
    int error = tercio__run_check(run);
    if (error)
        return error;
    error = tercio__view_open(run->pool->file, block, view);
    if (error == 0) {
        ((tercio_block *)(uintptr_t)block)->offset = 0; /* the view gives it back, not tercio_release */
        atomic_fetch_sub_explicit(&run->pool->blocks_out, 1, memory_order_release);
    }
    return error;
}

int tercio_run_fd(tercio_run *run)
{
    int error = tercio__run_check(run);
    if (error)
        return error;
    tercio__lock(run->pool);
    if (run->bell < 0)
        run->bell = tercio__owned(tercio__bell_create());
    int fd = run->bell;
    if (fd >= 0) {
        run->bell_public = true;
        tercio__pump(run->pool);
        if (!tercio__inbox_empty(&run->incoming) || !tercio__inbox_empty(&run->current) ||
            without_result(run) != TERCIO_EAGAIN)
            tercio__bell_ring(fd);
        tercio__arm_keeper(run->pool, false);
    }
    tercio__unlock(run->pool);
    return fd;
}

/* ---- Stopping -------------------------------------------------------------------------------------------------------- */

/* Lets go of what is under way: what is queued is dropped, what runs ends with its item and nobody hears of it. */
static void let_go(tercio_run *run)
{
    tercio_pool *pool = run->pool;
    tercio__drop_pending(pool, run);
    tercio__take_back(pool, run);
    for (unsigned i = 0; i < pool->n_workers; i++) {
        tercio__worker *worker = &pool->workers[i];
        for (uint64_t s = worker->sender.reclaimed; s < worker->sender.tail; s++) {
            tercio__chunk *chunk = &worker->inflight[s % TERCIO__SLOTS];
            if (chunk->run != run)
                continue;
            chunk->run = NULL;
            chunk->abort = TERCIO__ABORT_DROP;
            if (s == tercio__sender_passed(&worker->sender)) /* else the word may be about the one behind it */
                atomic_store_explicit(&worker->sender.map.words->cancel, s + 1, memory_order_release);
        }
    }
}

static void unlink_run(tercio_run *run)
{
    if (run->previous)
        run->previous->next = run->next;
    else if (run->pool->runs == run)
        run->pool->runs = run->next;
    if (run->next)
        run->next->previous = run->previous;
    run->next = run->previous = NULL;
}

void tercio__run_orphan(tercio_run *run)
{
    unlink_run(run);
    tercio__context_unref(run->pool, run->context);
    run->context = NULL;
    run->pool = NULL;
}

void tercio_run_detach(tercio_run *run)
{
    if (run == NULL || !tercio__run_is_ours(run))
        return;
    tercio_pool *pool = run->pool;
    tercio__lock(pool);
    let_go(run);
    tercio__drop_inbox(pool, &run->current);
    tercio__drop_inbox(pool, &run->incoming);
    tercio__run_orphan(run);
    if (run->options.lifespan)
        tell_lifespan(pool);
    tercio__unlock(pool);
    tercio__drop_garbage(pool);
}

void tercio_run_close(tercio_run *run)
{
    if (run == NULL)
        return;
    if (run->face)
        tercio__face_close(run);
    bool is_whole = true;
    if (tercio__run_is_ours(run)) {
        tercio_run_detach(run);
    } else {
        is_whole = run->pool == NULL || run->is_whole;
        if (is_whole) {
            tercio__context_forget(run->context); /* in a forked child: NULL where the pool is gone */
            tercio__inbox_clear(&run->current, NULL, NULL);
            tercio__inbox_clear(&run->incoming, NULL, NULL);
        }
    }
    if (is_whole)
        tercio__inbox_end(&run->current);
    tercio__owned_close(run->bell, run->fork_generation);
    free(run);
}

static bool covers(const tercio__chunk *chunk, const tercio_run *run, uint64_t index)
{
    return !chunk->over && chunk->run == run && index - chunk->index < chunk->n_items &&
           index - chunk->index >= chunk->done;
}

/* In a message of several items only the one that is meant may be touched: its answer is replaced when it comes. */
static void mark_cancelled(tercio__chunk *chunk, uint64_t index)
{
    chunk->abort = TERCIO__ABORT_CANCEL;
    chunk->abort_item = (uint32_t)(index - chunk->index);
}

int tercio_cancel(tercio_run *run, uint64_t index)
{
    int error = tercio__run_check(run);
    if (error)
        return error;
    tercio_pool *pool = run->pool;
    error = TERCIO_EINVAL;
    tercio__lock(pool);
    tercio__pump(pool);
    for (tercio__chunk *chunk = pool->pending; chunk && error; chunk = chunk->next)
        if (covers(chunk, run, index)) {
            error = 0;
            if (chunk->n_items > 1) {
                mark_cancelled(chunk, index);
                continue;
            }
            tercio__cancel_pending(pool, chunk);
            break;
        }
    for (unsigned i = 0; i < pool->n_workers && error; i++) {
        tercio__worker *worker = &pool->workers[i];
        for (uint64_t s = worker->sender.reclaimed; s < worker->sender.tail && error; s++) {
            tercio__chunk *chunk = &worker->inflight[s % TERCIO__SLOTS];
            if (!covers(chunk, run, index))
                continue;
            mark_cancelled(chunk, index);
            error = 0;
            if (chunk->n_items == 1 && tercio__sender_revoke(&worker->sender, s)) {
                const unsigned char *bytes = tercio__sender_bytes(&worker->sender, s);
                tercio__garbage(pool, bytes + chunk->n_blocks * sizeof(tercio_block), chunk->head_size, 1, 0, false);
                tercio__answer(chunk, (tercio__entry){.status = TERCIO_ECANCELED}, tercio_error_text(TERCIO_ECANCELED));
                tercio__chunk_over(pool, chunk, (const tercio_block *)(const void *)bytes, TERCIO__BLOCKS_FREE);
                tercio__wake(worker);
            } else if (s == tercio__sender_passed(&worker->sender) && chunk->abort_item == chunk->done) {
                tercio__interrupt_worker(worker, s);
            }
        }
    }
    if (error == 0) {
        tercio__run_ring(run);
        tercio__tell_host(pool);
    }
    tercio__unlock(pool);
    tercio__drop_garbage(pool);
    return error;
}

void tercio_abort(tercio_pool *pool, tercio_run *run)
{
    if (pool == NULL || !tercio__is_ours(pool))
        return;
    tercio__lock(pool);
    tercio__drop_pending(pool, run);
    tercio__take_back(pool, run);
    for (unsigned i = 0; i < pool->n_workers; i++) {
        uint64_t sequence;
        tercio__worker *worker = &pool->workers[i];
        tercio__chunk *chunk = tercio__running_chunk(worker, &sequence);
        if (chunk == NULL || chunk->over || (run && chunk->run != run))
            continue;
        chunk->abort = TERCIO__ABORT_DROP;
        tercio__interrupt_worker(worker, sequence);
    }
    tercio__ring_all(pool);
    tercio__unlock(pool);
    tercio__drop_garbage(pool);
}
