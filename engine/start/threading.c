/* SPDX-License-Identifier: MIT
 *
 * threading: a worker is a thread of this process. Its channel lies in the heap. It can be asked to stop, but not
 * killed: one that doesn't listen is left behind, and what it uses is freed when it ends after all.
 *
 *     commons    the pool's page, bells and file, and once the pool is closed its arena: one reference for the pool, one
 *                for each thread
 *     life       a thread's channel: one reference for the thread, one for the pool as long as it looks at it
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/forks.h"
#include "base/threads.h"
#include "channel/layout.h"
#include "memory/arena.h"
#include "memory/block.h"
#include "memory/views.h"
#include "plat/plat.h"
#include "start/methods.h"
#include "start/start.h"
#include "state/pool.h"
#include "tercio.h"
#include "worker/worker.h"

typedef struct {
    _Atomic uint32_t refs;
    tercio__page *page;
    tercio__file *file;
    int caller_bell, supervisor_bell;
    uint32_t fork_generation;
    tercio__arena *arena; /* the pool is closed: what threads that were left behind may read yet lies there */
    tercio__context *stranded;
} commons;

typedef struct {
    _Atomic uint32_t refs;
    tercio__worker_start start;
    commons *commons;
    _Atomic bool is_lost;    /* its task has ended the thread */
    const tercio_pool *pool; /* to compare with; it may be gone */
} life;

static void free_contexts(tercio__context *first)
{
    while (first) {
        tercio__context *context = first;
        first = context->next;
        free(context->parts);
        free(context);
    }
}

static void drop_commons(commons *c)
{
    if (atomic_fetch_sub(&c->refs, 1) != 1)
        return;
    tercio__arena_delete(c->arena);
    free_contexts(c->stranded);
    tercio__file_unref(c->file);
    tercio__owned_close(c->caller_bell, c->fork_generation);
    tercio__owned_close(c->supervisor_bell, c->fork_generation);
    free(c->page);
    free(c);
}

static void drop_life(life *l)
{
    if (atomic_fetch_sub(&l->refs, 1) != 1)
        return;
    free(l->start.channel);
    free(l);
}

/* A task has ended its thread, by pthread_exit say: the supervisor finds it, and starts another one. */
static void is_lost(void *data)
{
    life *mine = data;
    commons *c = mine->commons;
    atomic_store(&mine->is_lost, true);
    tercio__bell_ring(c->supervisor_bell);
    drop_life(mine);
    drop_commons(c);
}

static void *live(void *data)
{
    life *mine = data;
    commons *c = mine->commons;
    int before;
    /* The engine's own code is no place to be cancelled at; tasks are (table.c). */
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &before);
    tercio__signals_block(c->page->blocked); /* the supervisor, which starts replacements, blocks all */
    tercio__own_thread_of(mine->pool, false);
    pthread_cleanup_push(is_lost, mine);
    tercio__worker_live(&mine->start);
    pthread_cleanup_pop(0);
    drop_life(mine);
    drop_commons(c);
    return NULL;
}

static int open_commons(tercio_pool *pool)
{
    commons *c = malloc(sizeof *c);
    if (c == NULL)
        return TERCIO_ENOMEM;
    *c = (commons){.page = pool->page,
                   .file = tercio__file_ref(pool->file),
                   .caller_bell = pool->caller_bell,
                   .supervisor_bell = pool->supervisor_bell,
                   .fork_generation = pool->fork_generation};
    atomic_init(&c->refs, 1);
    pool->starter_data = c;
    return 0;
}

static void close_commons(tercio_pool *pool)
{
    commons *c = pool->starter_data;
    tercio__file_retire(
        c->file); /* before another thread can be the last to go: what nobody has seen goes with the arena */
    c->arena = pool->arena;
    c->stranded = pool->stranded;
    pool->arena = NULL;
    pool->stranded = NULL;
    drop_commons(c);
    pool->starter_data = NULL;
    pool->page = NULL;
    pool->caller_bell = pool->supervisor_bell = -1;
}

static int start(tercio__worker *worker, tercio__started *made)
{
    tercio_pool *pool = worker->pool;
    commons *c = pool->starter_data;
    life *new = malloc(sizeof *new);
    if (new == NULL)
        return TERCIO_ENOMEM;
    new->commons = c;
    new->pool = pool;
    new->start = (tercio__worker_start){
        .file = pool->file,
        .page = pool->page,
        .channel = worker->sender.map.words,
        .host = pool->host,
        .host_user = pool->host_user,
        .method = TERCIO_THREADING,
        .caller_bell = pool->caller_bell,
        .supervisor_bell = pool->supervisor_bell,
    };
    atomic_init(&new->refs, 2);
    atomic_init(&new->is_lost, false);
    atomic_fetch_add(&c->refs, 1);
    if (tercio__thread_start(&made->thread, pool->options.stack_size, live, new)) {
        int saved_errno = errno;
        free(new);
        drop_commons(c);
        errno = saved_errno;
        return TERCIO_ESYSTEM;
    }
    made->thread_runs = true;
    made->data = new;
    return 0;
}

static int reap(tercio__worker *worker, tercio__exit *how)
{
    const life *mine = worker->starter_data;
    worker->is_lost = !worker->goodbye && mine && atomic_load(&mine->is_lost);
    if (!worker->goodbye && !worker->is_lost)
        return TERCIO_EAGAIN;
    if (worker->thread_runs)
        pthread_join(worker->thread, NULL); /* it has said its last word: a few instructions are left */
    worker->thread_runs = false;
    *how = (tercio__exit){.code = worker->is_lost ? -1 : 0};
    return 0;
}

static void release(tercio__worker *worker)
{
    if (worker->starter_data)
        drop_life(worker->starter_data);
    else
        free(worker->sender.map.words); /* no thread was ever made for it */
    worker->starter_data = NULL;
    worker->sender.map.words = NULL;
}

/* No thread is there to drop its references. */
static void forget(tercio_pool *pool)
{
    commons *c = pool->starter_data;
    if (c == NULL)
        return; /* another thread was closing the pool */
    for (unsigned i = 0; i < pool->n_workers && pool->is_whole; i++) {
        free(pool->workers[i].sender.map.words);
        free(pool->workers[i].starter_data);
    }
    free(c->page);
    free(c);
}

const tercio__starter tercio__threading_starter = {
    .open = open_commons, .start = start, .reap = reap, .release = release, .close = close_commons, .forget = forget};
