/* SPDX-License-Identifier: MIT
 *
 * Pools in a child that the application forks. The child has copies of its parent's pools. It lacks their threads,
 * and their processes and bells belong to the parent. tercio_close frees the copies there.
 *
 * A copy is torn if another thread was changing the pool during the fork: its lists can't be walked. The state of the
 * lock in the child doesn't show that, since fork copies the pages one after the other. So before the fork, the
 * thread that forks takes the lock of each pool, if it is free; the copy of that pool is whole. It never waits for a
 * lock, because a fork may come from anywhere, also from a signal handler that has interrupted the lock's holder. Of
 * a torn copy the child frees only what doesn't move between the pool's opening and its end; the rest is leaked.
 */
#include "pool/forked.h"

#include <pthread.h>
#include <stdlib.h>

#include "base/forks.h"
#include "channel/layout.h"
#include "memory/arena.h"
#include "memory/views.h"
#include "pool/context.h"
#include "pool/free.h"
#include "pool/inbox.h"
#include "start/start.h"
#include "state/pool.h"
#include "tercio.h"

static pthread_mutex_t list_lock = PTHREAD_MUTEX_INITIALIZER;
static tercio_pool *list;
static uint32_t list_number; /* a child that could not take the list over begins another one */
static _Thread_local bool holds;

/* ---- Around a fork ----------------------------------------------------------------------------------------------- */

static bool hold(tercio_pool *pool)
{
    if (!tercio__is_ours(pool) || pthread_mutex_trylock(&pool->lock))
        return false;
    if (tercio__file_hold(pool->file))
        return true;
    tercio__unlock(pool);
    return false;
}

static void let_go(tercio_pool *pool)
{
    pool->is_held = false;
    tercio__file_let_go(pool->file);
    tercio__unlock(pool);
}

static void before_fork(void)
{
    holds = !tercio__owned_forks_a_worker() && pthread_mutex_trylock(&list_lock) == 0;
    for (tercio_pool *pool = holds ? list : NULL; pool; pool = pool->next_pool)
        pool->is_held = hold(pool);
}

static void after_fork(void)
{
    if (!holds)
        return;
    for (tercio_pool *pool = list; pool; pool = pool->next_pool)
        if (pool->is_held)
            let_go(pool);
    holds = false;
    pthread_mutex_unlock(&list_lock);
}

/* The records of callers that wait lie on the stacks of threads which the child lacks, and which its own threads will get:
 * this is the last time to look at them. */
static void forget_waiters(tercio_pool *pool)
{
    for (const tercio__pool_waiter *waiter = pool->pool_waiters; waiter; waiter = waiter->next)
        if (waiter->waits_on != pool->caller_bell)
            tercio__owned_close(waiter->waits_on, pool->fork_generation);
    pool->pool_waiters = NULL;
}

static void in_child(void)
{
    if (!holds) {
        list = NULL;
        list_number++;
        pthread_mutex_init(&list_lock, NULL);
        return;
    }
    for (tercio_pool *pool = list; pool; pool = pool->next_pool) {
        if (!pool->is_held)
            continue;
        pool->is_whole = true;
        forget_waiters(pool);
        for (tercio_run *run = pool->runs; run; run = run->next)
            run->is_whole = true;
        let_go(pool);
    }
    holds = false;
    pthread_mutex_unlock(&list_lock);
}

static void watch(void)
{
    tercio__fork_watch(); /* its handler in the child runs before ours */
    (void)pthread_atfork(before_fork, after_fork, in_child);
}

void tercio__pool_enlist(tercio_pool *pool)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, watch);
    pthread_mutex_lock(&list_lock);
    pool->list_number = list_number;
    pool->is_listed = true;
    pool->next_pool = list;
    pool->link = &list;
    if (list)
        list->link = &pool->next_pool;
    list = pool;
    pthread_mutex_unlock(&list_lock);
}

void tercio__pool_delist(tercio_pool *pool)
{
    if (!pool->is_listed)
        return;
    pthread_mutex_lock(&list_lock);
    if (pool->list_number == list_number) {
        *pool->link = pool->next_pool;
        if (pool->next_pool)
            pool->next_pool->link = pool->link;
    }
    pool->is_listed = false;
    pthread_mutex_unlock(&list_lock);
}

/* ---- In the child -------------------------------------------------------------------------------------------------- */

static void forget_messages(tercio_pool *pool)
{
    for (unsigned i = 0; i < pool->n_workers; i++) {
        tercio__worker *worker = &pool->workers[i];
        for (uint64_t s = worker->sender.reclaimed; s < worker->sender.tail; s++)
            if (!worker->inflight[s % TERCIO__SLOTS].over)
                tercio__context_forget(worker->inflight[s % TERCIO__SLOTS].context);
    }
    while (pool->pending) {
        tercio__chunk *chunk = pool->pending;
        pool->pending = chunk->next;
        tercio__context_forget(chunk->context);
        free(chunk->copy);
        free(chunk);
    }
    while (pool->stranded) {
        tercio__context *context = pool->stranded;
        pool->stranded = context->next;
        tercio__context_forget(context);
    }
}

static void forget_lists(tercio_pool *pool)
{
    forget_messages(pool);
    tercio__view_close(&pool->failure_view);
    if (pool->failure_taken)
        tercio__inbox_release(&pool->failures, &pool->failure_result);
    tercio__inbox *const inboxes[] = {&pool->failures, &pool->exits, &pool->garbage};
    for (size_t i = 0; i < sizeof inboxes / sizeof *inboxes; i++) {
        tercio__inbox_clear(inboxes[i], NULL, NULL);
        tercio__inbox_end(inboxes[i]);
    }
    free(pool->dead_ranges);
}

void tercio__pool_forget(tercio_pool *pool)
{
    tercio__pool_delist(pool);
    if (pool->is_whole)
        forget_lists(pool);
    for (unsigned i = 0; i < pool->n_workers; i++)
        tercio__owned_close(pool->workers[i].handle, pool->fork_generation);
    if (pool->starter->forget)
        pool->starter->forget(pool);
    if (pool->is_whole)
        tercio__arena_delete(pool->arena);
    tercio__file_forget(pool->file, pool->is_whole);
    /* The shared page and channels were not inherited. The lock and the condition stay as they are: threads that the child
     * doesn't have may seem to wait for them. */
    tercio__pool_free(pool);
}
