/* SPDX-License-Identifier: MIT
 *
 * The keeper: a thread of each pool that sleeps until a worker dies, a deadline passes, or work that no caller looks
 * after has to move. It starts replacements, and it calls host->notify. It never holds the pool's lock while it
 * waits or calls the host.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "fault.h"
#include "start/start.h"

#define LOAD(word, order) atomic_load_explicit(&(word), memory_order_##order)

enum { TOKENS = 16, GRACES_AT_END = 5 };
#define BELL_TOKEN UINT64_C(0x100000000)
#define STARTER_TOKEN UINT64_C(0x100000001)

/* ---- Failures of the pool itself ---------------------------------------------------------------------------------- */

void tercio__runs_lose(tercio_pool *pool, int error)
{
    for (tercio_run *run = pool->runs; run; run = run->next)
        if (run->error == 0 && (run->n_chunks || !run->ended))
            run->error = error;
}

void tercio__pool_fail(tercio_pool *pool, int error, const tercio__entry *entry, const tercio_block *blocks,
                       const void *out, const char *message)
{
    if (pool->failure)
        return;
    tercio__entry failure = {0};
    if (entry)
        failure = *entry;
    if (message == NULL)
        message = tercio_error_text(error);
    failure.message_size = (uint32_t)strlen(message) + 1;
    if (failure.status == 0)
        failure.status = error;
    pool->failure = error;
    tercio__runs_lose(pool, error);
    (void)tercio__inbox_add(&pool->failures, &failure, blocks, out, message);
    tercio__drop_pending(pool, NULL);
    tercio__take_back(pool, NULL);
    tercio__ring_all(pool);
}

int tercio_failure(tercio_pool *pool, tercio_result *result)
{
    if (pool == NULL || tercio__result_check(result))
        return TERCIO_EINVAL;
    if (!tercio__is_ours(pool))
        return 0;
    tercio__lock(pool);
    if (!pool->failure_taken && tercio__inbox_take(&pool->failures, &pool->failure_result)) {
        pool->failure_taken = true;
        (void)tercio__make_whole(pool, &pool->failure_result, &pool->failure_view);
        if (pool->options.table)
            tercio__face_explain(&pool->failure_result);
    }
    if (pool->failure_taken)
        tercio__result_write(result, &pool->failure_result);
    bool taken = pool->failure_taken;
    tercio__unlock(pool);
    return taken;
}

/* ---- Interrupting --------------------------------------------------------------------------------------------------- */

void tercio__interrupt_worker(tercio__worker *worker, uint64_t sequence)
{
    tercio_pool *pool = worker->pool;
    atomic_store_explicit(&worker->sender.map.words->cancel, sequence + 1, memory_order_release);
    tercio__at("interrupt: asked");
    if (worker->told_at && worker->told_sequence == sequence)
        return;
    worker->told_at = tercio__now();
    worker->told_sequence = sequence;
    if (worker->handle >= 0)
        (void)tercio__process_signal(worker->handle, worker->pid, tercio__interrupt_signal());
    tercio__wake(worker);
    tercio__bell_ring(pool->keeper_bell); /* it sets its timer for the grace */
}

static uint64_t grace_ns(const tercio_pool *pool)
{
    return tercio__nanoseconds(pool->options.grace > 0 ? pool->options.grace : 1.0);
}

/* A thread that doesn't listen is left behind with its channel; its number gets a new one. */
static void leave_thread(tercio__worker *worker)
{
    tercio__exit unknown = {.code = -1};
    atomic_store_explicit(&worker->sender.map.words->stop, TERCIO__STOP_NOW, memory_order_release);
    atomic_store_explicit(&worker->sender.map.words->gate, TERCIO__GATE_DEAD, memory_order_release);
    pthread_detach(worker->thread);
    worker->thread_runs = false;
    tercio__worker_gone(worker, &unknown);
    /* Whoever looks for news looks at a channel where none can come. Without memory for it, the old one stays until
     * the next start. */
    void *empty = aligned_alloc(64, (size_t)worker->pool->channel_bytes);
    if (empty) {
        tercio__stop_spinners(worker->pool);
        worker->pool->starter->release(worker);
        tercio__channel_at(&worker->sender.map, empty, worker->pool->page->ring_bytes);
        tercio__channel_reset(&worker->sender.map, worker->index, 0);
        worker->sender.tail = worker->sender.reclaimed = 0;
        atomic_store_explicit(&worker->sender.up_read, 0, memory_order_relaxed);
    }
}

void tercio__kill_worker(tercio__worker *worker)
{
    if (worker->state == TERCIO_STATE_NONE)
        return;
    if (worker->handle >= 0) {
        worker->struck = true;
        if (!worker->pool->options.no_group && worker->pool->starter != &tercio__forkserver_starter)
            tercio__process_kill_group(worker->pid);
        (void)tercio__process_signal(worker->handle, worker->pid, SIGKILL);
    } else if (worker->thread_runs) {
        leave_thread(worker);
    }
}

void tercio__end_by_force(tercio__worker *worker)
{
    if (worker->state == TERCIO_STATE_NONE || worker->sender.map.words == NULL)
        return;
    atomic_store_explicit(&worker->sender.map.words->stop, TERCIO__STOP_NOW, memory_order_release);
    if (worker->handle >= 0)
        tercio__kill_worker(worker);
    else
        tercio__wake(worker);
}

/* ---- Deadlines ------------------------------------------------------------------------------------------------------- */

static void fail_phase(tercio__worker *worker, int kind)
{
    tercio__entry entry = {
        .index = worker->index, .status = TERCIO_ETIMEDOUT, .kind = kind, .worker = worker->index, .pid = worker->pid};
    tercio__pool_fail(worker->pool, TERCIO_ETIMEDOUT, &entry, NULL, NULL, tercio_error_text(TERCIO_ETIMEDOUT));
    tercio__kill_worker(worker);
}

tercio__chunk *tercio__running_chunk(tercio__worker *worker, uint64_t *sequence)
{
    uint64_t passed = tercio__sender_passed(&worker->sender);
    if (passed >= worker->sender.tail || passed < worker->sender.reclaimed)
        return NULL;
    *sequence = passed;
    return &worker->inflight[passed % TERCIO__SLOTS];
}

/* True when a message that is queued behind what runs may run out of its time before we would look again. */
static bool hides_a_limit(const tercio__worker *worker, const tercio__chunk *running, uint64_t sequence)
{
    uint64_t least = running ? running->timeout_ns : 0;
    if (running == NULL)
        return false;
    for (uint64_t s = sequence + 1; s < worker->sender.tail; s++) {
        const tercio__chunk *chunk = &worker->inflight[s % TERCIO__SLOTS];
        if (!chunk->over && chunk->timeout_ns && (least == 0 || chunk->timeout_ns < least))
            return true;
    }
    return false;
}

/* An item that has not begun has no time of its own, but a worker that waits and doesn't take it, for as long as the item
 * might take and the grace, is one that won't. Returns: when that is; 0: it can't be told. */
static uint64_t limit_to_begin(tercio__worker *worker, uint64_t sequence, uint64_t timeout_ns, uint64_t now)
{
    if (worker->handle < 0 || !worker->alive)
        return 0;
    if (worker->offered_at == 0 || worker->offered_sequence != sequence) {
        worker->offered_at = now;
        worker->offered_sequence = sequence;
    }
    return worker->offered_at + timeout_ns + grace_ns(worker->pool);
}

/* What is over its time is told to stop, and killed after the grace. Returns: the next deadline; 0: none. */
static uint64_t check_worker(tercio__worker *worker, uint64_t now, bool *hidden)
{
    tercio_pool *pool = worker->pool;
    if (worker->state != TERCIO_STATE_START || worker->sender.map.words == NULL)
        return 0;
    tercio__channel *words = worker->sender.map.words;
    uint64_t since = LOAD(words->item_since, acquire), sequence = 0, limit;
    uint32_t phase = LOAD(words->phase, acquire);

    if (pool->dropped_at && worker->handle < 0 && !worker->thread_runs)
        return 0; /* it is being started, and start_worker ends it */
    if (pool->dropped_at) {
        limit = pool->dropped_at + grace_ns(pool);
        if (now < limit)
            return limit;
        tercio__kill_worker(worker);
        return 0;
    }
    if (worker->told_at) {
        limit = worker->told_at + grace_ns(pool);
        if (now < limit)
            return limit;
        worker->told_at = 0;
        tercio__kill_worker(worker);
        return 0;
    }
    uint64_t leaving = LOAD(words->leaving_since, acquire);
    if (leaving) {
        limit = leaving + GRACES_AT_END * grace_ns(pool);
        if (now < limit)
            return limit;
        worker->cut_short += !worker->struck;
        tercio__kill_worker(worker);
        return 0;
    }
    if (phase == TERCIO_STATE_INIT || phase == TERCIO_STATE_EXIT) {
        bool is_init = phase == TERCIO_STATE_INIT;
        double seconds = is_init ? pool->options.init_timeout : pool->options.exit_timeout;
        limit = (since ? since : now) + tercio__nanoseconds(seconds);
        if (seconds > 0 && now < limit)
            return limit;
        if (seconds > 0) {
            fail_phase(worker, is_init ? TERCIO_KIND_INIT : TERCIO_KIND_EXIT);
            return 0;
        }
    }
    tercio__chunk *chunk = tercio__running_chunk(worker, &sequence);
    *hidden |= hides_a_limit(worker, chunk, sequence);
    double init_limit = worker->sender.tail > worker->sender.reclaimed ? pool->options.init_timeout : 0;
    uint64_t next = init_limit > 0 && LOAD(words->ns_init, relaxed) == 0 ? now + tercio__nanoseconds(init_limit) : 0;
    if (chunk == NULL || chunk->over || chunk->timeout_ns == 0)
        return next;
    uint64_t what = LOAD(words->item_sequence, acquire);
    if (since == 0 || LOAD(words->item_since, relaxed) != since || phase != TERCIO_STATE_WORK ||
        what >> 32 != (sequence & UINT32_MAX)) {
        next = now + chunk->timeout_ns; /* about to begin */
        limit = phase == TERCIO_STATE_WAIT ? limit_to_begin(worker, sequence, chunk->timeout_ns, now) : 0;
        if (limit == 0 || now < limit)
            return limit && limit < next ? limit : next;
        tercio__kill_worker(worker); /* stopped, perhaps; what it has not begun goes to the next */
        return 0;
    }
    limit = since + chunk->timeout_ns;
    if (now < limit)
        return limit;
    if (chunk->run) {
        chunk->abort = TERCIO__ABORT_TIMEOUT;
        chunk->abort_item = (uint32_t)what;
    }
    if (chunk->run && worker->handle < 0) {
        /* A thread can't be made to stop: its caller hears in time all the same. */
        tercio_run *run = chunk->run;
        tercio__answer(chunk, (tercio__entry){.status = TERCIO_ETIMEDOUT, .worker = worker->index},
                       tercio_error_text(TERCIO_ETIMEDOUT));
        tercio__run_ring(run);
    }
    tercio__interrupt_worker(worker, sequence);
    return now + grace_ns(pool);
}

static uint64_t check_deadlines(tercio_pool *pool, bool *hidden)
{
    uint64_t next = 0, now = tercio__now();
    for (unsigned i = 0; i < pool->n_workers; i++) {
        next = tercio__sooner(next, check_worker(&pool->workers[i], now, hidden));
    }
    return next;
}

/* ---- Starting ---------------------------------------------------------------------------------------------------------- */

static bool wanted(const tercio_pool *pool)
{
    return tercio__takes_work(pool) && pool->keeper_is <= TERCIO__KEEPER_RUNS;
}

static int new_channel(tercio__worker *worker)
{
    tercio_pool *pool = worker->pool;
    tercio__sender *sender = &worker->sender;
    uint32_t lifespan = sender->map.words ? LOAD(sender->map.words->lifespan, relaxed) : 0;
    tercio__stop_spinners(pool);
    if (sender->map.words && pool->starter->release)
        pool->starter->release(worker);
    if (sender->map.words == NULL) {
        void *memory = pool->channels + worker->index * pool->channel_bytes;
        if (!pool->starter->processes) {
            memory = aligned_alloc(64, (size_t)pool->channel_bytes);
            if (memory == NULL)
                return TERCIO_ENOMEM;
        }
        tercio__channel_at(&sender->map, memory, pool->page->ring_bytes);
    }
    tercio__channel_reset(&sender->map, worker->index, (uint32_t)worker->restarts);
    sender->tail = sender->reclaimed = sender->down_used = sender->down_freed = 0;
    atomic_store_explicit(&sender->up_read, 0, memory_order_relaxed);
    atomic_store_explicit(&sender->map.words->lifespan, lifespan, memory_order_relaxed);
    if (pool->options.n_cpu_ids)
        sender->map.words->cpu = pool->options.cpu_ids[worker->index % pool->options.n_cpu_ids];
    worker->family = sender->map.words->family = pool->page->takes_children ? tercio__family_new() : 0;
    sender->map.words->begun = worker->begun = tercio__now();
    worker->goodbye = worker->alive = worker->failed = worker->struck = worker->is_lost = false;
    worker->offered_at = worker->stuck_at = 0;
    tercio__order_anew(worker);
    worker->seen_done = worker->seen_work = 0;
    return 0;
}

static void open_gate(tercio__worker *worker, uint32_t gate)
{
    _Atomic uint32_t *word = &worker->sender.map.words->gate;
    tercio__at("gate: about to open");
    atomic_store_explicit(word, gate, memory_order_release);
    tercio__at("gate: open");
    tercio__word_wake(word);
}

/* Returns: 0 or an error, errno kept. */
static int start_worker(tercio__worker *worker, bool again)
{
    tercio_pool *pool = worker->pool;
    tercio__lock(pool);
    int error = new_channel(worker);
    if (error == 0) {
        worker->restarts += again;
        worker->state = TERCIO_STATE_START; /* messages may come before it lives */
        pool->n_live++;
        pool->is_spread = false;
        pool->level = 0;
    }
    tercio__unlock(pool);
    if (error)
        return error;
    tercio__started made = {.handle = -1};
    tercio__exit never = {.code = -1};
    tercio__at("start: about to");
    error = pool->starter->start(worker, &made);
    int kept = errno;
    tercio__at("start: started");
    tercio__lock(pool);
    if (error == 0) {
        worker->pid = made.pid;
        worker->handle = tercio__owned(made.handle);
        worker->thread = made.thread;
        worker->thread_runs = made.thread_runs;
        worker->starter_data = made.data;
    }
    bool watched = pool->starter->processes && pool->starter != &tercio__forkserver_starter;
    if (error == 0 && watched && (error = tercio__set_add(pool->set, worker->handle, worker->index)) != 0) {
        kept = errno;
        open_gate(worker, TERCIO__GATE_DEAD);
        (void)tercio__process_signal(worker->handle, worker->pid, SIGKILL);
        (void)tercio__bells_wait(&worker->handle, 1, 0, NULL); /* it stands at the gate: nothing holds it up */
        (void)pool->starter->collect(worker, &never);
    }
    if (error) {
        worker->stillborn = 0;
        worker->goodbye = true; /* nothing ran */
        tercio__worker_gone(worker, &never);
    } else {
        if (pool->ending >= TERCIO__DROPPING) /* since it was begun */
            tercio__end_by_force(worker);
        open_gate(worker, TERCIO__GATE_OPEN);
        tercio__ring_all(pool); /* who waits for room has some, and the worker doesn't know */
    }
    tercio__dispatch_pending(pool);
    tercio__unlock(pool);
    errno = kept;
    return error;
}

int tercio__start_missing(tercio_pool *pool)
{
    int error = 0;
    bool again = pool->started;
    tercio__lock(pool);
    pool->needs_start = false;
    tercio__unlock(pool);
    for (unsigned i = 0; i < pool->n_workers && error == 0; i++) {
        tercio__lock(pool);
        bool missing = pool->workers[i].state == TERCIO_STATE_NONE && wanted(pool);
        tercio__unlock(pool);
        if (missing)
            error = start_worker(&pool->workers[i], again);
    }
    pool->started = true;
    return error;
}

/* ---- The thread --------------------------------------------------------------------------------------------------------- */

static void take_token(tercio_pool *pool, uint64_t token)
{
    if (token == BELL_TOKEN)
        tercio__bell_clear(pool->keeper_bell);
    else if (token == STARTER_TOKEN)
        pool->starter->event(pool);
}

static void collect_the_dead(tercio_pool *pool, const uint64_t *tokens, int n)
{
    for (int i = 0; i < n; i++)
        if (tokens[i] < pool->n_workers)
            (void)tercio__worker_collect(&pool->workers[tokens[i]]);
    for (unsigned i = 0; i < pool->n_workers; i++)
        if (pool->starter->event || pool->workers[i].goodbye || pool->workers[i].thread_runs)
            (void)tercio__worker_collect(&pool->workers[i]);
}

/* Once for what came: the host may leave it to a caller who is inside. */
static bool has_to_notify(tercio_pool *pool)
{
    if (pool->host->notify == NULL || !tercio__host_has_news(pool))
        return false;
    for (tercio_run *run = pool->runs; run; run = run->next)
        run->news = NO_NEWS;
    return true;
}

static void *keep(void *data)
{
    tercio_pool *pool = data;
    uint64_t tokens[TOKENS];
    int n = 0;

    tercio__own_thread_of(pool, true);
    tercio__lock(pool);
    while (pool->keeper_is == TERCIO__KEEPER_RUNS) {
        for (int i = 0; i < n; i++)
            take_token(pool, tokens[i]);
        tercio__gather(pool);
        collect_the_dead(pool, tokens, n); /* reads what they said last */
        tercio__tell_callers(pool);
        bool hidden = false;
        uint64_t deadline = check_deadlines(pool, &hidden);
        deadline = tercio__sooner(tercio__sooner(deadline, tercio__linger(pool)), tercio__check_owed(pool));
        if (pool->n_waiting == 0) /* else a caller that sleeps has this deadline */
            deadline = tercio__sooner(deadline, pool->look_at_long);
        if (pool->needs_start && wanted(pool)) {
            tercio__unlock(pool);
            int error = tercio__start_missing(pool), number = errno;
            tercio__lock(pool);
            if (error) {
                tercio__entry entry = {.status = error, .code = number, .kind = TERCIO_KIND_START};
                tercio__pool_fail(pool, error, &entry, NULL, NULL,
                                  error == TERCIO_ESYSTEM ? strerror(number) : tercio_error_text(error));
            }
            n = 0;
            continue;
        }
        bool notify = has_to_notify(pool), garbage = !tercio__inbox_empty(&pool->garbage);
        if (!notify)
            tercio__arm_keeper(pool, hidden);
        tercio__unlock(pool);
        if (garbage)
            tercio__drop_garbage(pool);
        if (notify)
            pool->host->notify(pool->host_user, NULL);
        n = tercio__set_wait(pool->set, tokens, TOKENS, notify ? 1 : deadline);
        tercio__lock(pool);
        if (n < 0) { /* somebody has closed it: nothing can be heard of any more */
            tercio__entry entry = {.status = TERCIO_ESYSTEM, .code = EBADF, .kind = TERCIO_KIND_START};
            tercio__pool_fail(pool, TERCIO_ESYSTEM, &entry, NULL, NULL,
                              "the program has closed file descriptors that a pool of workers was using");
            while (pool->keeper_is == TERCIO__KEEPER_RUNS)
                pthread_cond_wait(&pool->keeper_moves, &pool->lock);
            n = 0;
        }
    }
    pool->keeper_is = TERCIO__KEEPER_PARKED;
    pthread_cond_broadcast(&pool->keeper_moves);
    while (pool->keeper_is != TERCIO__KEEPER_RELEASED)
        pthread_cond_wait(&pool->keeper_moves, &pool->lock);
    tercio__unlock(pool);
    return NULL;
}

bool tercio__lasting_thread(tercio_pool *pool)
{
    if (tercio__is_main_thread())
        return true;
    tercio__lock(pool);
    bool is_keeper = pool->keeper_is != TERCIO__KEEPER_NONE && pthread_equal(pthread_self(), pool->keeper);
    tercio__unlock(pool);
    return is_keeper;
}

int tercio__keeper_listen(tercio_pool *pool)
{
    int error = tercio__set_add(pool->set, pool->keeper_bell, BELL_TOKEN);
    for (size_t i = 0; i < sizeof pool->starter_events / sizeof pool->starter_events[0] && error == 0; i++)
        if (pool->starter_events[i] >= 0)
            error = tercio__set_add(pool->set, pool->starter_events[i], STARTER_TOKEN);
    return error;
}

/* A worker that the supervisor forks goes on with its stack, as the first ones do with the main thread's. */
static size_t keeper_stack(const tercio_pool *pool)
{
    size_t own = pool->options.stack_size, main = tercio__main_stack();
    return pool->starter == &tercio__fork_starter && main > own ? main : own;
}

int tercio__keeper_start(tercio_pool *pool)
{
    sigset_t all, old;
    /* Signals are the application's threads' to take. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    tercio__lock(pool); /* the thread begins with it: it finds its own number, and that it runs */
    int error = tercio__thread_start(&pool->keeper, keeper_stack(pool), keep, pool);
    if (error && pool->starter == &tercio__fork_starter) /* so much address space may be refused */
        error = tercio__thread_start(&pool->keeper, pool->options.stack_size, keep, pool);
    if (error == 0)
        pool->keeper_is = TERCIO__KEEPER_RUNS;
    tercio__unlock(pool);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (error)
        return error;
    tercio__count_own_thread(1);
    return 0;
}

void tercio__keeper_stop(tercio_pool *pool)
{
    if (pool->keeper_is == TERCIO__KEEPER_NONE)
        return;
    tercio__lock(pool);
    pool->keeper_is = TERCIO__KEEPER_STOPS;
    tercio__bell_ring(pool->keeper_bell);
    pthread_cond_broadcast(&pool->keeper_moves);
    while (pool->keeper_is != TERCIO__KEEPER_PARKED)
        pthread_cond_wait(&pool->keeper_moves, &pool->lock);
    tercio__unlock(pool);
}

void tercio__keeper_end(tercio_pool *pool)
{
    if (pool->keeper_is == TERCIO__KEEPER_NONE)
        return;
    tercio__lock(pool);
    pool->keeper_is = TERCIO__KEEPER_RELEASED;
    pthread_cond_broadcast(&pool->keeper_moves);
    tercio__unlock(pool);
    pthread_join(pool->keeper, NULL);
    pool->keeper_is = TERCIO__KEEPER_NONE;
    tercio__count_own_thread(-1);
}
