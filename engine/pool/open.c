/* SPDX-License-Identifier: MIT
 *
 * Opens a pool: options, shared memory, bells, the first workers.
 */
#include "pool/open.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/abi.h"
#include "base/forks.h"
#include "base/threads.h"
#include "channel/layout.h"
#include "memory/arena.h"
#include "memory/block.h"
#include "memory/views.h"
#include "plat/plat.h"
#include "pool/collect.h"
#include "pool/context.h"
#include "pool/deadlines.h"
#include "pool/deaths.h"
#include "pool/forked.h"
#include "pool/supervise.h"
#include "pool/wait.h"
#include "pool/workers.h"
#include "start/lasting.h"
#include "start/methods.h"
#include "start/start.h"
#include "state/pool.h"
#include "tercio.h"

enum { RING_BYTES = 256 << 10, SMALL_RING_BYTES = 64 << 10, MANY_WORKERS = 64, MOST_WORKERS = 1 << 15 };
enum { MAX_PENDING = 10000 };

static const uint64_t default_arena_bytes = UINT64_C(256) << 20;

/* ---- Options -------------------------------------------------------------------------------------------------------- */

static int check_options(tercio_pool *pool, const tercio__front *front)
{
    const tercio_options *o = &pool->options;
    if ((o->table == NULL) == (o->host == NULL) || (o->n_cpu_ids && o->n_cpu_ids != pool->n_workers))
        return TERCIO_EINVAL;
    if (pool->n_workers > MOST_WORKERS || o->ring_bytes % 4096 || o->ring_bytes > (UINT32_MAX >> 1) ||
        !(o->grace >= 0) || !(o->init_timeout >= 0) || !(o->exit_timeout >= 0))
        return TERCIO_EINVAL;
    return tercio__host_check(o->host ? o->host : front->host);
}

static int read_options(tercio_pool *pool, const tercio_options *given, const tercio__front *front)
{
    int error = tercio__options_read(&pool->options, given);
    if (error)
        return error;
    tercio_options *o = &pool->options;
    pool->method = o->method == TERCIO_DEFAULT ? TERCIO_FORK : o->method;
    pool->starter = tercio__starter_of(pool->method);
    pool->n_workers = o->n_workers ? o->n_workers : tercio_usable_cpus();
    error = pool->starter ? check_options(pool, front) : TERCIO_EINVAL;
    if (error)
        return error;
    pool->blocked = o->sigmask ? tercio__signals_of(o->sigmask) : tercio__signals_blocked();
    pool->host = o->host ? o->host : front->host;
    pool->host_user = o->host ? o->host_user : front->host_user;
    pool->explain = o->host ? NULL : front->explain;
    if (o->ring_bytes == 0)
        o->ring_bytes = pool->n_workers > MANY_WORKERS ? SMALL_RING_BYTES : RING_BYTES;
    if (o->arena_bytes == 0)
        o->arena_bytes = default_arena_bytes;
    if (o->max_pending == 0) /* so many that each worker has one and finds another */
        o->max_pending = pool->n_workers > MAX_PENDING / 2 ? 2 * (size_t)pool->n_workers : MAX_PENDING;
    if (pool->starter->copies_process && o->table && !o->threads_at_fork &&
        tercio__count_threads() - tercio__count_own_thread(0) > 1)
        return TERCIO_ETHREADS;
    return 0;
}

/* ---- Memory ----------------------------------------------------------------------------------------------------------- */

static int make_memory(tercio_pool *pool)
{
    uint64_t ring = pool->options.ring_bytes;
    uint64_t first = TERCIO__PAGE_BYTES;
    pool->channel_bytes = TERCIO__CHANNEL_BYTES(ring);
    if (pool->starter->processes) {
        first = tercio__page_round(first, tercio__page_size());
        pool->channel_bytes = tercio__page_round(pool->channel_bytes, tercio__page_size());
    }
    pool->channels_bytes = pool->channel_bytes * pool->n_workers;
    int fd = -1;

    if (pool->starter->processes) {
        void *memory;
        fd = tercio__owned(tercio__shm_create());
        if (fd < 0)
            return fd;
        pool->file = tercio__file_new(fd);
        if (pool->file == NULL) {
            tercio__owned_close(fd, pool->fork_generation);
            return TERCIO_ENOMEM;
        }
        int error = tercio__shm_reserve(fd, 0, first + pool->channels_bytes);
        if (error || (error = tercio__shm_map(fd, 0, TERCIO__PAGE_BYTES, TERCIO__MAP_SHARED, &memory)) != 0)
            return error;
        pool->page = memory;
        error = tercio__shm_map(fd, first, (size_t)pool->channels_bytes, TERCIO__MAP_SHARED, &memory);
        if (error)
            return error;
        pool->channels = memory;
    } else {
        pool->file = tercio__file_new(-1);
        pool->page = aligned_alloc(64, TERCIO__PAGE_BYTES);
        if (pool->file == NULL || pool->page == NULL)
            return TERCIO_ENOMEM;
        memset(pool->page, 0, TERCIO__PAGE_BYTES);
    }
    uint64_t segment = UINT64_C(2) << 20, end = first + pool->channels_bytes;
    pool->page->magic = TERCIO__MAGIC;
    pool->page->version = TERCIO_VERSION;
    pool->page->n_channels = pool->n_workers;
    pool->page->channel_bytes = pool->channel_bytes;
    pool->page->ring_bytes = ring;
    pool->page->method = (int32_t)pool->method;
    pool->page->parent_pid = (int32_t)getpid();
    pool->page->arena_bytes = pool->options.arena_bytes;
    pool->page->blocked = pool->blocked;
    pool->page->takes_children = !pool->options.no_group && pool->starter->processes;
    tercio__time_phases(pool);
    atomic_init(&pool->page->file_end, (end + segment - 1) / segment * segment);
    pool->arena = tercio__arena_new(pool->file, &pool->page->file_end, NULL, NULL);
    return pool->arena ? 0 : TERCIO_ENOMEM;
}

static int place_preparation(tercio_pool *pool)
{
    tercio_block block;
    if (pool->options.n_prepare == 0)
        return 0;
    tercio__lock(pool);
    int error = tercio__pack_pieces(pool, pool->options.prepare, pool->options.n_prepare, &block);
    tercio__unlock(pool);
    if (error)
        return error;
    pool->page->prepare_offset = block.offset;
    pool->page->prepare_size = block.size;
    pool->options.prepare = NULL;
    pool->options.n_prepare = 0;
    return 0;
}

/* ---- Open --------------------------------------------------------------------------------------------------------------- */

static tercio_pool *new_pool(void)
{
    tercio_pool *pool = calloc(1, sizeof *pool);
    if (pool == NULL)
        return NULL;
    if (pthread_mutex_init(&pool->lock, NULL)) {
        free(pool);
        return NULL;
    }
    if (pthread_cond_init(&pool->supervisor_moved, NULL)) {
        pthread_mutex_destroy(&pool->lock);
        free(pool);
        return NULL;
    }
    tercio__fork_watch();
    pool->fork_generation = tercio__fork_generation();
    pool->caller_bell = pool->supervisor_bell = pool->set = -1;
    pool->starter_events[0] = pool->starter_events[1] = -1;
    pool->lifeline[0] = pool->lifeline[1] = -1;
    pool->pending_end = &pool->pending;
    atomic_init(&pool->spin_ns, 20000);
    return pool;
}

static int make_workers(tercio_pool *pool)
{
    pool->workers = calloc(pool->n_workers, sizeof *pool->workers);
    if (pool->workers == NULL)
        return TERCIO_ENOMEM;
    for (unsigned i = 0; i < pool->n_workers; i++) {
        pool->workers[i].pool = pool;
        pool->workers[i].index = i;
        pool->workers[i].handle = -1;
    }
    return 0;
}

static int make_bells(tercio_pool *pool)
{
    if ((pool->caller_bell = tercio__owned(tercio__bell_create())) < 0)
        return pool->caller_bell;
    if ((pool->supervisor_bell = tercio__owned(tercio__bell_create())) < 0)
        return pool->supervisor_bell;
    pool->set = tercio__owned(tercio__set_create());
    if (pool->set < 0)
        return pool->set;
    if (!pool->starter->children_are_ours || tercio__lasting_thread(pool))
        return 0;
    int ends[2], error = tercio__lifeline(ends);
    if (error)
        return error;
    pool->lifeline[0] = tercio__owned(ends[0]);
    pool->lifeline[1] = tercio__owned(ends[1]);
    return 0;
}

/* Copies of what the host hands to fresh workers, since a replacement may start long after its own are closed. */
static int copy_descriptors(tercio_pool *pool)
{
    const int *given = pool->options.descriptors;
    size_t n = pool->options.n_descriptors;
    pool->options.descriptors = NULL;
    pool->options.n_descriptors = 0;
    if (n == 0 || !pool->starter->takes_descriptors)
        return 0;
    pool->descriptors = calloc(n, sizeof *pool->descriptors);
    pool->descriptor_identities = calloc(n, sizeof *pool->descriptor_identities);
    if (pool->descriptors == NULL || pool->descriptor_identities == NULL)
        return TERCIO_ENOMEM;
    for (; pool->n_descriptors < n; pool->n_descriptors++) {
        int fd = fcntl(given[pool->n_descriptors], F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
        if (fd < 0)
            return TERCIO_ESYSTEM;
        pool->descriptors[pool->n_descriptors] = tercio__owned_copy(fd);
        (void)tercio__descriptor_identity(fd, pool->descriptor_identities[pool->n_descriptors]);
    }
    return 0;
}

/* A C program hears at once of workers that can't start. */
static int wait_until_alive(tercio_pool *pool)
{
    int result = 0;
    tercio__lock(pool);
    for (;;) {
        unsigned alive = 0;
        tercio__pump(pool);
        for (unsigned i = 0; i < pool->n_workers; i++)
            alive += pool->workers[i].alive;
        if (pool->failure || alive == pool->n_workers)
            break;
        result = tercio__pool_wait(pool, 0, NULL);
        if (result == TERCIO_EINTERRUPTED)
            result = 0; /* a signal handler ran; what it wants is for calls that can be repeated */
        if (result < 0) /* it can't wait */
            break;
    }
    if (pool->failure)
        result = pool->failure;
    tercio__unlock(pool);
    return result;
}

int tercio__pool_open(tercio_pool **out, const tercio_options *options, const tercio__front *front)
{
    *out = NULL;
    tercio_pool *pool = new_pool();
    if (pool == NULL)
        return TERCIO_ENOMEM;
    int error = read_options(pool, options, front);
    if (error == 0)
        error = make_workers(pool);
    if (error == 0)
        error = make_memory(pool);
    if (error == 0)
        pool->page->table_hash = front->table_hash;
    if (error == 0)
        error = place_preparation(pool);
    if (error == 0)
        error = make_bells(pool);
    if (error == 0)
        error = copy_descriptors(pool);
    if (error == 0 && pool->starter->open)
        error = pool->starter->open(pool);
    pool->options.sigmask = NULL; /* the caller's memory */
    if (error == 0)
        error = tercio__supervisor_watch(pool);
    if (error == 0 && pool->starter->processes)
        tercio__note_memory_kills(pool);
    if (error == 0)
        error = tercio__start_missing(pool);
    if (error == 0)
        error = tercio__supervisor_start(pool);
    if (error == 0 && pool->options.table)
        error = wait_until_alive(pool);
    if (error) {
        int saved_errno = errno;
        tercio_close(pool);
        errno = saved_errno;
        return error;
    }
    tercio__pool_enlist(pool);
    *out = pool;
    return 0;
}

int tercio_share(tercio_pool *pool, tercio_sharing sharing, tercio_bytes bytes, uint32_t *id)
{
    if (pool == NULL || id == NULL || (bytes.size && bytes.data == NULL) ||
        (sharing != TERCIO_READONLY && sharing != TERCIO_COPY_ON_WRITE))
        return TERCIO_EINVAL;
    if (!tercio__is_ours(pool))
        return TERCIO_EFORKED;
    tercio_block block;
    tercio__lock(pool);
    uint32_t n = atomic_load_explicit(&pool->page->n_shares, memory_order_relaxed);
    int error = pool->ending != TERCIO__OPEN ? TERCIO_ECLOSED : n == TERCIO__SHARES ? TERCIO_ENOMEM : 0;
    if (error == 0)
        error = tercio__arena_put(pool->arena, bytes.data, bytes.size, TERCIO__BLOCK_PINNED, &block);
    if (error == 0) {
        uint64_t writable = sharing == TERCIO_COPY_ON_WRITE ? TERCIO__SHARE_WRITABLE : 0;
        pool->page->shares[n] = (tercio__range){block.offset, block.size | writable};
        atomic_store_explicit(&pool->page->n_shares, n + 1, memory_order_release);
        *id = n;
    }
    tercio__unlock(pool);
    return error;
}
