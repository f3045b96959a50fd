/* SPDX-License-Identifier: MIT
 *
 * A pool's life: open, finish, close.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fault.h"
#include "start/start.h"

enum { RING_BYTES = 256 << 10, SMALL_RING_BYTES = 64 << 10, MANY_WORKERS = 64, MOST_WORKERS = 1 << 15 };
enum { MAX_PENDING = 10000 };
static const uint64_t default_arena_bytes = UINT64_C(256) << 20;

/* ---- Threads of our own ------------------------------------------------------------------------------------------- */

int tercio__count_own_thread(int change)
{
    static _Atomic int n;
    return atomic_fetch_add(&n, change) + change;
}

static _Thread_local struct {
    const tercio_pool *pool; /* NULL: not a thread of ours */
    bool supervises;
    uint32_t fork_generation; /* a worker that it forks is none of them */
} own_thread;

void tercio__own_thread_of(const tercio_pool *pool, bool supervises)
{
    own_thread.pool = pool;
    own_thread.supervises = supervises;
    own_thread.fork_generation = tercio__fork_generation();
}

bool tercio_may_close(const tercio_pool *pool)
{
    if (own_thread.pool == NULL || own_thread.fork_generation != tercio__fork_generation())
        return true;
    return !own_thread.supervises && own_thread.pool != pool;
}

/* ---- Options -------------------------------------------------------------------------------------------------------- */

static int check_options(tercio_pool *pool)
{
    const tercio_options *o = &pool->options;
    if ((o->table == NULL) == (o->host == NULL) || (o->n_cpu_ids && o->n_cpu_ids != pool->n_workers))
        return TERCIO_EINVAL;
    if (pool->n_workers > MOST_WORKERS || o->ring_bytes % 4096 || o->ring_bytes > (UINT32_MAX >> 1) ||
        !(o->grace >= 0) || !(o->init_timeout >= 0) || !(o->exit_timeout >= 0))
        return TERCIO_EINVAL;
    return o->table ? tercio__table_check(o->table) : tercio__host_check(o->host);
}

static const tercio__starter *starter_of(tercio_method method)
{
    switch (method) {
    case TERCIO_FORK:
        return &tercio__fork_starter;
    case TERCIO_SPAWN:
        return &tercio__spawn_starter;
    case TERCIO_FORKSERVER:
        return &tercio__forkserver_starter;
    case TERCIO_THREADING:
        return &tercio__threading_starter;
    default:
        return NULL;
    }
}

static int read_options(tercio_pool *pool, const tercio_options *given)
{
    int error = tercio__options_read(&pool->options, given);
    if (error)
        return error;
    tercio_options *o = &pool->options;
    pool->method = o->method == TERCIO_DEFAULT ? TERCIO_FORK : o->method;
    pool->starter = starter_of(pool->method);
    pool->n_workers = o->n_workers ? o->n_workers : tercio_usable_cpus();
    error = pool->starter ? check_options(pool) : TERCIO_EINVAL;
    if (error)
        return error;
    pool->blocked = o->sigmask ? tercio__signals_of(o->sigmask) : tercio__signals_blocked();
    pool->host = o->table ? &tercio__table_host : o->host;
    pool->host_user = o->table ? (void *)(uintptr_t)o->table : o->host_user;
    if (o->ring_bytes == 0)
        o->ring_bytes = pool->n_workers > MANY_WORKERS ? SMALL_RING_BYTES : RING_BYTES;
    if (o->arena_bytes == 0)
        o->arena_bytes = default_arena_bytes;
    if (o->max_pending == 0) /* so many that each worker has one and finds another */
        o->max_pending = pool->n_workers > MAX_PENDING / 2 ? 2 * (size_t)pool->n_workers : MAX_PENDING;
    if (pool->method == TERCIO_FORK && o->table && !o->threads_at_fork &&
        tercio__count_threads() - tercio__count_own_thread(0) > 1)
        return TERCIO_ETHREADS;
    return 0;
}

/* ---- Memory ----------------------------------------------------------------------------------------------------------- */

static void time_phases(tercio_pool *pool)
{
    bool timed = pool->options.init_timeout > 0 || pool->options.exit_timeout > 0;
    atomic_store_explicit(&pool->page->phases_timed, timed, memory_order_relaxed);
    atomic_thread_fence(memory_order_seq_cst); /* a worker stores its phase, then looks here */
}

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
    time_phases(pool);
    pool->page->table_hash = pool->options.table ? tercio__table_hash(pool->options.table) : 0;
    atomic_init(&pool->page->file_end, (end + segment - 1) / segment * segment);
    pool->arena = tercio__arena_new(pool->file, &pool->page->file_end, NULL, NULL);
    return pool->arena ? 0 : TERCIO_ENOMEM;
}

static int place_preparation(tercio_pool *pool)
{
    tercio_block block;
    if (pool->options.n_prepare == 0)
        return 0;
    int error = tercio__pack_pieces(pool, pool->options.prepare, pool->options.n_prepare, &block);
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
    if (pthread_cond_init(&pool->keeper_moves, NULL)) {
        pthread_mutex_destroy(&pool->lock);
        free(pool);
        return NULL;
    }
    tercio__fork_watch();
    pool->fork_generation = tercio__fork_generation();
    pool->caller_bell = pool->keeper_bell = pool->set = -1;
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
    if ((pool->keeper_bell = tercio__owned(tercio__bell_create())) < 0)
        return pool->keeper_bell;
    pool->set = tercio__owned(tercio__set_create());
    if (pool->set < 0)
        return pool->set;
    bool ours = pool->starter == &tercio__fork_starter || pool->starter == &tercio__spawn_starter;
    if (!ours || tercio__lasting_thread(pool))
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
    if (n == 0 || (pool->method != TERCIO_SPAWN && pool->method != TERCIO_FORKSERVER))
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

int tercio_open(tercio_pool **out, const tercio_options *options)
{
    if (out == NULL)
        return TERCIO_EINVAL;
    *out = NULL;
    tercio_pool *pool = new_pool();
    if (pool == NULL)
        return TERCIO_ENOMEM;
    int error = read_options(pool, options);
    if (error == 0)
        error = make_workers(pool);
    if (error == 0)
        error = make_memory(pool);
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
        error = tercio__keeper_listen(pool);
    if (error == 0 && pool->starter->processes)
        tercio__note_memory_kills(pool);
    if (error == 0)
        error = tercio__start_missing(pool);
    if (error == 0)
        error = tercio__keeper_start(pool);
    if (error == 0 && pool->options.table)
        error = wait_until_alive(pool);
    if (error) {
        int kept = errno;
        tercio_close(pool);
        errno = kept;
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

/* ---- Finish --------------------------------------------------------------------------------------------------------------- */

static bool busy(const tercio_pool *pool)
{
    if (pool->pending)
        return true;
    for (const tercio_run *run = pool->runs; run; run = run->next)
        if (run->n_chunks)
            return true;
    return false;
}

static void ask_to_stop(tercio_pool *pool, uint32_t how)
{
    for (unsigned i = 0; i < pool->n_workers; i++) {
        tercio__worker *worker = &pool->workers[i];
        if (worker->state == TERCIO_STATE_NONE || worker->sender.map.words == NULL)
            continue;
        atomic_store_explicit(&worker->sender.map.words->stop, how, memory_order_release);
        if (how == TERCIO__STOP_NOW && worker->handle >= 0 &&
            atomic_load_explicit(&worker->sender.map.words->phase, memory_order_acquire) != TERCIO_STATE_WAIT)
            (void)tercio__process_signal(worker->handle, worker->pid, tercio__interrupt_signal());
        tercio__wake(worker);
    }
}

/* An answer that was too large for the ring lies in a block. */
bool tercio__make_whole(tercio_pool *pool, tercio_result *result, tercio_view *view)
{
    if (result->n_blocks == 0 || result->out.size || tercio__view_open(pool->file, &result->blocks[0], view))
        return false;
    result->out = (tercio_bytes){view->data, view->size};
    result->n_blocks = 0;
    return true;
}

static void hand_out_exits(tercio_pool *pool, void (*on_exit)(void *user, const tercio_result *), void *user)
{
    tercio_result result = {0};
    tercio__lock(pool);
    tercio__inbox exits = pool->exits;
    pool->exits = (tercio__inbox){0};
    tercio__unlock(pool);
    while (tercio__inbox_take(&exits, &result)) {
        tercio_view view = {0};
        (void)tercio__make_whole(pool, &result, &view);
        if (pool->options.table)
            tercio__face_explain(&result);
        if (on_exit)
            on_exit(user, &result);
        tercio__view_close(&view);
        tercio__inbox_release(&exits, &result);
    }
}

/* Who sleeps until there is room, or until its messages are answered and it has none, waits for nothing any more. */
static void close_to_work(tercio_pool *pool)
{
    if (pool->ending != TERCIO__OPEN)
        return;
    pool->ending = TERCIO__DRAINING;
    tercio__ring_all(pool);
}

/* The limit has passed. Processes are killed; threads are asked to stop, and those that don't are left behind after the
 * grace. Nothing that comes back from a worker is handed out again. */
static void drop_work(tercio_pool *pool)
{
    if (pool->ending < TERCIO__DROPPING) {
        pool->ending = TERCIO__DROPPING;
        pool->dropped_at = tercio__now();
    }
    tercio__runs_lose(pool, TERCIO_ECLOSED);
    tercio__drop_pending(pool, NULL);
    tercio__take_back(pool, NULL);
    for (unsigned i = 0; i < pool->n_workers; i++)
        tercio__end_by_force(&pool->workers[i]);
    tercio__ring_all(pool);
    tercio__bell_ring(pool->keeper_bell); /* it sets its timer for the grace */
    while (pool->n_live > 0 && pool->ending != TERCIO__CLOSING && tercio__pool_wait(pool, 0, NULL) != TERCIO_ESYSTEM)
        tercio__pump(pool);
}

int tercio_finish_masked(tercio_pool *pool, double timeout, const void *sigmask,
                         void (*on_exit)(void *user, const tercio_result *), void *user)
{
    if (pool == NULL)
        return TERCIO_EINVAL;
    if (!tercio__is_ours(pool))
        return TERCIO_EFORKED;
    uint64_t deadline = timeout > 0 ? tercio__deadline(timeout) : 0;
    int result = 0;
    tercio__lock(pool);
    while (result == 0 && pool->ending < TERCIO__DROPPING && (pool->n_live > 0 || (busy(pool) && !pool->failure))) {
        tercio__pump(pool);
        if (!busy(pool)) {
            close_to_work(pool);
            ask_to_stop(pool, TERCIO__STOP_DRAINED);
        }
        if (pool->failure)
            ask_to_stop(pool, TERCIO__STOP_DRAINED);
        result = deadline && tercio__now() >= deadline ? TERCIO_EAGAIN : tercio__pool_wait(pool, deadline, sigmask);
    }
    if (result == TERCIO_EAGAIN) {
        drop_work(pool);
        result = TERCIO_ETIMEDOUT;
    }
    if (result == 0) {
        close_to_work(pool);
        if (pool->failure)
            result = pool->failure;
        else if (pool->ending >= TERCIO__DROPPING)
            result = TERCIO_ECLOSED; /* another caller's limit has passed, or the pool is closed */
    }
    tercio__unlock(pool);
    tercio__drop_garbage(pool);
    hand_out_exits(pool, on_exit, user);
    return result;
}

int tercio_finish(tercio_pool *pool, double timeout, void (*on_exit)(void *user, const tercio_result *), void *user)
{
    return tercio_finish_masked(pool, timeout, NULL, on_exit, user);
}

/* ---- Close ------------------------------------------------------------------------------------------------------------------- */

/* The program has closed the set, and perhaps the handles. A child that isn't collected yet keeps its number, so a new
 * handle is of that child; what is no child of ours is a server's, which ends with its socket. Under the lock. */
static void end_unheard(tercio_pool *pool)
{
    for (unsigned i = 0; i < pool->n_workers; i++) {
        tercio__worker *worker = &pool->workers[i];
        tercio__exit how = {.code = -1};
        if (worker->state == TERCIO_STATE_NONE || worker->pid <= 0)
            continue;
        siginfo_t info;
        bool is_child = waitid(P_PID, (id_t)worker->pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0;
        int handle = is_child ? tercio__process_handle(worker->pid) : -1;
        if (handle >= 0 && tercio__process_collect(handle, worker->pid, &how) == TERCIO_EAGAIN) {
            (void)tercio__process_signal(handle, worker->pid, SIGKILL);
            (void)tercio__bells_wait(&handle, 1, 0, NULL);
            (void)tercio__process_collect(handle, worker->pid, &how);
        }
        if (handle >= 0)
            close(handle);
        worker->handle = -1; /* the number may be another descriptor's by now */
        tercio__worker_gone(worker, &how);
    }
}

/* The keeper is gone: this thread collects the workers. */
static void end_workers(tercio_pool *pool)
{
    double grace = pool->options.grace > 0 ? pool->options.grace : 1.0;
    uint64_t deadline = tercio__deadline(grace), token;
    bool killed = false;

    tercio__lock(pool);
    pool->ending = TERCIO__CLOSING;
    tercio__at("close: closing");
    tercio__drop_pending(pool, NULL);
    tercio__take_back(pool, NULL);
    ask_to_stop(pool, TERCIO__STOP_NOW);
    tercio__ring_all(pool);
    for (;;) {
        if (pool->starter->event)
            pool->starter->event(pool);
        tercio__bell_clear(pool->keeper_bell);
        for (unsigned i = 0; i < pool->n_workers; i++)
            (void)tercio__worker_collect(&pool->workers[i]);
        if (pool->n_live == 0)
            break;
        tercio__unlock(pool);
        int n = tercio__set_wait(pool->set, &token, 1, killed ? 0 : deadline);
        tercio__lock(pool);
        if (n < 0 && pool->starter->processes) {
            end_unheard(pool);
            break;
        }
        if (n == 0 && !killed) {
            killed = true;
            for (unsigned i = 0; i < pool->n_workers; i++)
                tercio__kill_worker(&pool->workers[i]);
        }
    }
    tercio__unlock(pool);
}

static void free_memory(tercio_pool *pool)
{
    bool processes = pool->starter && pool->starter->processes;
    if (processes && pool->channels)
        tercio__shm_unmap(pool->channels, (size_t)pool->channels_bytes);
    if (processes && pool->page)
        tercio__shm_unmap(pool->page, TERCIO__PAGE_BYTES);
    else
        free(pool->page);
    tercio__arena_delete(pool->arena);
    if (pool->file) {
        tercio__file_listen(pool->file, -1);
        tercio__file_retire(pool->file);
        tercio__file_unref(pool->file);
    }
    free(pool->dead_ranges);
    pthread_cond_destroy(&pool->keeper_moves);
    pthread_mutex_destroy(&pool->lock);
    tercio__pool_free(pool);
}

void tercio__pool_free(tercio_pool *pool)
{
    const int own[] = {pool->caller_bell, pool->keeper_bell, pool->set, pool->lifeline[0], pool->lifeline[1]};
    for (size_t i = 0; i < sizeof own / sizeof *own; i++)
        tercio__owned_close(own[i], pool->fork_generation);
    for (size_t i = 0; i < pool->n_descriptors; i++)
        tercio__owned_copy_close(pool->descriptors[i], pool->fork_generation, pool->descriptor_identities[i]);
    free(pool->descriptors);
    free(pool->descriptor_identities);
    free(pool->workers);
    free(pool->kept);
    free(pool);
}

void tercio_close(tercio_pool *pool)
{
    if (pool == NULL)
        return;
    if (!tercio__is_ours(pool)) {
        tercio__pool_forget(pool);
        return;
    }
    tercio__pool_delist(pool);
    tercio__keeper_stop(pool);
    if (pool->started && pool->workers)
        end_workers(pool);
    tercio__keeper_end(pool);
    tercio__lock(pool);
    while (pool->runs) {
        tercio_run *run = pool->runs;
        tercio__run_orphan(run);
        if (run->bell_public)
            tercio__bell_ring(run->bell);
    }
    tercio__unlock(pool);
    tercio__drop_garbage(pool);
    tercio__inbox_clear(&pool->exits, NULL, NULL);
    tercio__view_close(&pool->failure_view);
    if (pool->failure_taken)
        tercio__inbox_release(&pool->failures, &pool->failure_result);
    tercio__inbox_clear(&pool->failures, NULL, NULL);
    if (pool->starter && pool->starter->release && pool->workers)
        for (unsigned i = 0; i < pool->n_workers; i++)
            if (pool->workers[i].sender.map.words)
                pool->starter->release(&pool->workers[i]);
    if (pool->starter && pool->starter->close && pool->starter_data)
        pool->starter->close(pool);
    free_memory(pool);
}

/* ---- For people --------------------------------------------------------------------------------------------------------------- */

static double seconds(const tercio__worker *worker, unsigned which, const _Atomic uint64_t *now)
{
    uint64_t ns = worker->past[which];
    if (now)
        ns += atomic_load_explicit(now, memory_order_relaxed);
    return (double)ns * 1e-9;
}

static void fill_stats(const tercio__worker *worker, tercio_stats *stats)
{
    bool lives = worker->state != TERCIO_STATE_NONE && worker->sender.map.words;
    const tercio__channel *words = lives ? worker->sender.map.words : NULL;
    stats->tasks = worker->past_tasks + (words ? atomic_load_explicit(&words->n_done, memory_order_relaxed) : 0);
    stats->restarts = worker->restarts;
    stats->start = seconds(worker, 0, words ? &words->ns_start : NULL);
    stats->init = seconds(worker, 1, words ? &words->ns_init : NULL);
    stats->wait = seconds(worker, 2, words ? &words->ns_wait : NULL);
    stats->work = seconds(worker, 3, words ? &words->ns_work : NULL);
    stats->exit = seconds(worker, 4, words ? &words->ns_exit : NULL);
    stats->pid = worker->pid;
    stats->state = words ? (int)atomic_load_explicit(&words->phase, memory_order_relaxed) : TERCIO_STATE_NONE;
    stats->died = worker->died;
    stats->died_signal = worker->last_death.signal;
    stats->died_code = worker->last_death.code;
    stats->killed = worker->killed;
    stats->cut_short = worker->cut_short;
    stats->running = 0;
    uint64_t sequence = tercio__sender_passed(&worker->sender);
    if (stats->state == TERCIO_STATE_WORK && sequence < worker->sender.tail) {
        const tercio__chunk *chunk = &worker->inflight[sequence % TERCIO__SLOTS];
        stats->running = chunk->index + chunk->done;
    }
}

int tercio_get_stats(tercio_pool *pool, tercio_stats *stats, size_t n)
{
    if (pool == NULL || (n && tercio__struct_fits(stats, sizeof stats->size)))
        return TERCIO_EINVAL;
    if (!tercio__is_ours(pool))
        return TERCIO_EFORKED;
    size_t size = n ? stats->size : 0;
    tercio__lock(pool);
    for (size_t i = 0; i < n && i < pool->n_workers; i++) {
        tercio_stats one = {0};
        if (pool->workers[i].sender.map.words)
            fill_stats(&pool->workers[i], &one);
        memcpy((char *)stats + i * size, &size, sizeof size);
        tercio__struct_write((char *)stats + i * size, &one, sizeof one);
    }
    tercio__unlock(pool);
    return (int)pool->n_workers;
}

int tercio_worker_pids(tercio_pool *pool, int *pids, size_t n)
{
    if (pool == NULL || (n && pids == NULL))
        return TERCIO_EINVAL;
    if (!tercio__is_ours(pool))
        return TERCIO_EFORKED;
    tercio__lock(pool);
    for (size_t i = 0; i < n && i < pool->n_workers; i++)
        pids[i] = pool->workers[i].pid;
    tercio__unlock(pool);
    return (int)pool->n_workers;
}

int tercio_set_timeouts(tercio_pool *pool, double init_timeout, double exit_timeout)
{
    if (pool == NULL || !(init_timeout >= 0) || !(exit_timeout >= 0))
        return TERCIO_EINVAL;
    if (!tercio__is_ours(pool))
        return TERCIO_EFORKED;
    tercio__lock(pool);
    pool->options.init_timeout = init_timeout;
    pool->options.exit_timeout = exit_timeout;
    time_phases(pool);
    tercio__unlock(pool);
    tercio__bell_ring(pool->keeper_bell); /* it sets its timer */
    return 0;
}
