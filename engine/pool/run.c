/* SPDX-License-Identifier: MIT
 *
 * Runs: open, results out, close. Messages go in by push.c; the waiting itself is in wait.c.
 */
#include "pool/run.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "base/abi.h"
#include "base/forks.h"
#include "channel/channel.h"
#include "memory/views.h"
#include "plat/plat.h"
#include "pool/announce.h"
#include "pool/cancel.h"
#include "pool/collect.h"
#include "pool/context.h"
#include "pool/garbage.h"
#include "pool/inbox.h"
#include "pool/message.h"
#include "pool/notify.h"
#include "pool/ring.h"
#include "pool/wait.h"
#include "pool/wake.h"
#include "state/pool.h"
#include "tercio.h"

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
    tercio__arm_supervisor(run->pool, false);
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
            tercio__arm_supervisor(pool, false);
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
    if (run->face_calls)
        return run->face_calls->next(run, timeout, result);
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
    if (run->face_calls)
        run->face_calls->release(run, result);
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
        tercio__arm_supervisor(run->pool, false);
    }
    tercio__unlock(run->pool);
    return fd;
}

/* ---- Stopping -------------------------------------------------------------------------------------------------------- */

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
    tercio__assert_locked(run->pool);
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
    tercio__let_go(run);
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
    if (run->face_calls)
        run->face_calls->close(run);
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
