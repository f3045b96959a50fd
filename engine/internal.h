/* SPDX-License-Identifier: MIT
 *
 * The parent's side of a pool: its workers, its runs, and what is under way. All of it lies in this process's heap
 * and is guarded by pool->lock, a lock of this process alone; where a field is read without it, it says so.
 * No callback of the host runs, and nothing waits, under the lock.
 */
#ifndef TERCIO_INTERNAL_H
#define TERCIO_INTERNAL_H

#include <pthread.h>

#include "arena.h"
#include "channel.h"
#include "descriptors.h"
#include "face.h"
#include "plat/plat.h"
#include "tercio.h"

typedef struct tercio__worker tercio__worker;
typedef struct tercio__context tercio__context;
typedef struct tercio__chunk tercio__chunk;
typedef struct tercio__inbox_page tercio__inbox_page;
struct tercio__starter;

/* ---- What is under way ----------------------------------------------------------------------------------------- */

/* How a pool ends; it only goes forward. docs/design.md has the table of states and events. pool->failure stands beside
 * it: a pool that failed does no work in any state. */
enum {
    TERCIO__OPEN,     /* takes work, and replaces its workers */
    TERCIO__DRAINING, /* tercio_finish found nothing under way: workers end, and aren't replaced */
    TERCIO__DROPPING, /* the limit of tercio_finish has passed: what is under way is dropped, workers are ended by force */
    TERCIO__CLOSING /* tercio_close */
};

/* The supervisor's thread; it only goes forward, too. */
enum {
    TERCIO__KEEPER_NONE, /* it was never started, or is joined */
    TERCIO__KEEPER_RUNS,
    TERCIO__KEEPER_STOPS, /* it is asked to park */
    TERCIO__KEEPER_PARKED, /* it does nothing any more, and lives on for workers that end with the thread that forked them */
    TERCIO__KEEPER_RELEASED /* it may end */
};

enum { TERCIO__ABORT_NO, TERCIO__ABORT_CANCEL, TERCIO__ABORT_TIMEOUT, TERCIO__ABORT_DROP };

/* A message: in a worker's ring (then it lies in worker->inflight), or waiting in the pool (then it is on
 * pool->pending and owns a copy of its bytes). */
struct tercio__chunk {
    tercio_run *run; /* NULL: over, or its run was closed and nobody wants the answers */
    uint64_t index, cookie;
    uint64_t turn; /* number of the message within its run */
    uint32_t n_items;
    uint32_t done;     /* items answered: the first so many */
    uint32_t attempts; /* times that item number `done` was handed out */
    uint32_t n_blocks;
    bool head_in_block;
    bool anywhere;       /* any worker may have it, also one that has begun a later message of its run */
    bool over;           /* nothing is owed any more: answered, taken back or dropped */
    bool held;           /* counts in pool->n_held */
    uint32_t abort;      /* TERCIO__ABORT_...: why it is being stopped */
    uint32_t abort_item; /* the item that was meant */
    uint64_t timeout_ns; /* the run's, which it outlives; 0: none */
    tercio__context *context;
    uint32_t head_size; /* of parts[0] in the ring */
    uint64_t ring_end;  /* down_used behind it */
    uint64_t lent;      /* bytes of its blocks */
    /* on pool->pending only */
    tercio__chunk *next;
    unsigned char *copy; /* blocks, then parts[0] */
};

struct tercio__context {
    uint32_t id, refs;   /* the run, and each chunk under way */
    tercio_block block;  /* pinned; offset 0: none */
    tercio_block *parts; /* its large parts, pinned too */
    size_t n_parts;
    bool is_stranded;
    tercio__context *next; /* on pool->stranded */
};

/* An item that took long, of those that were a worker before. */
typedef struct {
    uint64_t ns, index;
    char text[TERCIO_LONGEST_TEXT];
} tercio__past;

struct tercio__worker {
    tercio_pool *pool;
    unsigned index;
    int state;       /* TERCIO_STATE_NONE, _START (also while it lives), _EXIT (asked to end), _DEAD */
    bool goodbye;    /* it ended on purpose */
    bool alive;      /* it has said so */
    bool failed;     /* it could not start */
    bool struck;     /* we have killed it */
    int pid, handle; /* 0, -1: a thread, or none */
    uint64_t family; /* what it starts, until that was killed with it; 0: is left alone */
    pthread_t thread;
    bool thread_runs;
    bool is_lost; /* its thread was ended by what it ran */
    void *starter_data;
    tercio__sender sender;
    tercio__chunk inflight[TERCIO__SLOTS];
    uint64_t seen_done, seen_work; /* counters when last looked at, for the mean time of an item */
    uint64_t restarts, stillborn;  /* deaths before it was alive, in a row */
    bool died;
    bool died_for_memory;
    tercio__exit last_death; /* if it died, ever */
    uint64_t killed;         /* times that it died of SIGKILL, and not of ours */
    uint64_t cut_short;      /* times that we killed it in host->leave */
    uint64_t told_at;        /* when what it runs was interrupted; 0: not */
    uint64_t told_sequence;  /* ... and which message that was */
    uint64_t offered_at;     /* when a message with a limit was first seen that it, waiting, had not taken; 0: never */
    uint64_t offered_sequence;    /* ... and which */
    uint64_t past_tasks, past[5]; /* counters of those that were this worker before */
    tercio__past past_longest[TERCIO__TOP];
    uint64_t begun;                    /* when it was started */
    bool is_awaited;                   /* somebody waited for an answer that was read last */
    bool is_kept;                      /* has a place in pool->kept */
    unsigned n_busy;                   /* looks at it in a row that found it busy, while it has */
    bool owed;                         /* a wake that was put off */
    uint64_t stuck_at, stuck_sequence; /* order.c: when its next message was first seen not to have begun; 0: never */
};

/* Results on their way to the caller: pages of entries. Filled under the lock, then handed over whole. */
struct tercio__inbox_page {
    tercio__inbox_page *next, *previous;
    size_t used, size, read;
    size_t refs; /* entries handed out and not released */
    _Alignas(16) unsigned char bytes[];
};

typedef struct {
    tercio__inbox_page *first, *last;
    tercio__inbox_page *read; /* to the end, but with entries that are out */
} tercio__inbox;

struct tercio_run {
    tercio_pool *pool; /* NULL: the pool is gone */
    tercio_run *next, *previous;
    struct tercio__face *face;
    tercio_map_options options;
    tercio__context *context;
    uint64_t timeout_ns;
    uint64_t n_messages;    /* handed in */
    uint64_t refused_bytes; /* of the message that found no room last; 0: none */
    uint32_t refused_items;
    uint64_t n_active; /* items handed in and not answered */
    uint64_t n_answered;
    uint64_t n_chunks;  /* messages in rings and on pending */
    unsigned n_pending; /* ... on pending; runs with an order alone */
    bool is_strict;     /* options.strict_order, and not in_turn */
    bool queues;        /* messages are so long that those which no worker can take yet wait on pending */
    bool ended, stopped;
    bool more;              /* its last message was pushed with another one to follow at once */
    bool holds;             /* ... and may wait in the pool */
    int error;              /* of the run, after all results */
    tercio__inbox incoming; /* under the lock */
    tercio__inbox current;  /* the caller's */
    /* tercio_map: good answers go to their places at once. */
    struct {
        unsigned char *out; /* item i's is at out + i * size */
        size_t size;        /* 0: answers are not wanted, only that they came */
        bool wanted;
        uint64_t n;    /* items that landed */
        uint64_t seen; /* ... when the caller looked last */
    } landing;
    enum { NO_NEWS, NEWS, NEWS_TOLD } news; /* results that the host wasn't notified of; TOLD: the keeper will */
    bool is_inside;                         /* its caller is in a call that looks for results */
    bool waits, wants_room;                 /* ... and asleep in tercio_wait ... */
    int waits_on;                           /* ... on this bell */
    int bell;                               /* of this run alone; -1: none yet */
    uint32_t fork_generation;               /* of the pool: in a forked child the pool may be closed before the run */
    bool is_whole;                          /* as the pool's */
    bool bell_public;                       /* tercio_run_fd was asked for */
    bool interrupted;                       /* whoever waits shall return, once */
    double item_ns;                         /* mean time of an item, smoothed; 0: none yet */
    uint32_t depth;                         /* messages ahead of each worker */
    uint64_t passed[]; /* by worker: 1 + the highest turn that it is through with; 0: none, as for one that is new */
};

/* Who is in tercio__pool_wait. */
typedef struct tercio__pool_waiter {
    struct tercio__pool_waiter *next;
    int waits_on; /* the caller bell; or, where another one drives, a bell of its own */
    bool wants_room;
} tercio__pool_waiter;

struct tercio_pool {
    pthread_mutex_t lock;
    uint32_t fork_generation; /* of the process that opened it; read without the lock */
    uint64_t blocked;         /* signals, in the thread that opened it: workers keep that mask */
    tercio_method method;
    tercio_options options; /* pointers inside are ours, or borrowed as tercio.h says */
    const tercio_host *host;
    void *host_user;
    const struct tercio__starter *starter;
    void *starter_data;
    int starter_events[2]; /* descriptors that the keeper watches for it; -1: none */

    tercio__file *file;
    tercio__page *page;      /* shared */
    unsigned char *channels; /* shared: n_workers channels */
    uint64_t channel_bytes, channels_bytes;
    tercio__arena *arena;
    uint64_t lent_bytes; /* blocks of chunks under way */

    unsigned n_workers, n_live;
    tercio__worker *workers;
    unsigned turn, level; /* dispatch.c */
    bool is_spread;       /* every worker that isn't kept has a message */
    unsigned last_active;
    const tercio__worker *last_in_turn;
    tercio__worker **kept; /* wakes.c: those that are kept awake while more messages follow */
    unsigned n_kept, kept_at;
    bool counted_cpus;     /* kept is NULL because each worker has one */
    uint64_t owed_since;   /* when the first wake was put off that is still owed; 0: none is */
    uint64_t look_at_owed; /* for when the keeper's timer is set to look after them; 0: it isn't */
    uint64_t look_at_long; /* when a message that holds others up will have taken long; 0: none does */

    tercio_run *runs;
    tercio__chunk *pending, **pending_end;
    uint64_t pending_bytes; /* of their copies */
    uint64_t n_held;        /* messages that were pushed to wait in the pool, if need be, and aren't answered */
    uint32_t next_context;
    unsigned n_waiting;                /* callers asleep */
    tercio__pool_waiter *pool_waiters; /* those of them that are in tercio__pool_wait */

    int caller_bell, keeper_bell, set;
    int *descriptors; /* that fresh workers get copies of: ours */
    uint64_t (*descriptor_identities)[2];
    size_t n_descriptors;
    int lifeline[2];          /* for workers that a thread starts which may end before the process; -1: not needed */
    bool driver;              /* somebody waits on caller_bell */
    _Atomic uint64_t spin_ns; /* how long a caller looks before it sleeps */
    _Atomic unsigned spin_skips;
    unsigned n_spinning;   /* callers who look at channels without the lock */
    _Atomic bool spin_off; /* they are asked to stop */

    pthread_t keeper;
    int keeper_is; /* TERCIO__KEEPER_... */
    pthread_cond_t keeper_moves;
    bool needs_start;           /* a worker has to be replaced */
    bool started;               /* the first workers were */
    tercio__context *stranded;  /* those that a thread which was left behind may open yet */
    tercio__range *dead_ranges; /* segments of workers that died */
    size_t n_dead_ranges;
    uint64_t moved_bytes; /* of blocks, since the keeper looked last */
    uint64_t trim_at;     /* when the keeper will look whether free memory can go; 0: it has, or there is little */
    bool listens;         /* for views that are closed after it went */
    _Atomic uint64_t blocks_out; /* large parts of results that were neither taken nor released */
    int ending;                  /* TERCIO__OPEN ... */
    uint64_t dropped_at;         /* when it began to drop; 0: it has not */
    int failure;                 /* why the pool can't go on; 0: it can */
    tercio__inbox failures;      /* the first one, for tercio_failure */
    tercio_result failure_result;
    bool failure_taken;
    tercio_view failure_view;
    tercio__inbox garbage; /* messages and answers that nobody will read, for host->drop */
    tercio__inbox exits;   /* what exit functions left */
    _Atomic uint32_t interrupted;
    /* forked.c */
    tercio_pool *next_pool, **link; /* in the list of pools */
    uint32_t list_number;
    bool is_listed;
    bool is_held;  /* its lock is, by the thread that forks */
    bool is_whole; /* in a forked child: no other thread was changing the pool during the fork */
    /* deaths.c, as they were when the pool was opened: processes of this control group that the kernel killed for
     * memory, and workers of this process that were killed at all. */
    bool counts_memory_kills;
    uint64_t memory_kills, all_killed;
};

static inline void tercio__lock(tercio_pool *pool)
{
    pthread_mutex_lock(&pool->lock);
}
static inline void tercio__unlock(tercio_pool *pool)
{
    pthread_mutex_unlock(&pool->lock);
}
static inline bool tercio__is_ours(const tercio_pool *pool)
{
    return pool->fork_generation == tercio__fork_generation();
}

/* Its pool is open, and this process's. Never looks at the pool. */
static inline bool tercio__run_is_ours(const tercio_run *run)
{
    return run->pool && run->fork_generation == tercio__fork_generation();
}

/* Messages may be pushed, and runs opened. */
static inline bool tercio__takes_work(const tercio_pool *pool)
{
    return pool->ending == TERCIO__OPEN && !pool->failure;
}
/* A message that comes back from a worker goes to another one; else it is dropped. */
static inline bool tercio__keeps_work(const tercio_pool *pool)
{
    return pool->ending <= TERCIO__DRAINING && !pool->failure;
}

/* Of two deadlines; 0 is none. */
static inline uint64_t tercio__sooner(uint64_t one, uint64_t other)
{
    return one == 0 || (other && other < one) ? other : one;
}

/* ---- dispatch.c: which worker gets which message ---------------------------------------------------------------- */

/* Hands a message to a worker that has room. Returns: 1; 0 no room; negative. Under the lock.
 * *wake is the worker that may have to be woken, once the lock is free. */
int tercio__dispatch(tercio_run *, const tercio_message *, tercio__worker **wake);
/* Puts it on pool->pending instead. */
int tercio__defer(tercio_run *, const tercio_message *);
/* Hands out what is pending. Wakes workers itself. Under the lock. */
void tercio__dispatch_pending(tercio_pool *);
/* A message that its worker will not finish goes back to pending, in front, without the items that are done. */
/* `seen`: the worker had begun it, and what it was lent can't be lent again. */
int tercio__requeue(tercio__worker *, uint64_t sequence, bool seen);
/* Takes from the workers' rings what no one has begun, of one run or of all (NULL), and drops it. */
void tercio__take_back(tercio_pool *, tercio_run *);
/* The message is over, but for its bytes in the ring: its context, its part of the counters, its large parts.
 * They are freed (no worker has them, or it is dead), or stay lent to worker number `lent_to` - 1 until it returns
 * them. */
enum { TERCIO__BLOCKS_FREE = 0 };
void tercio__chunk_over(tercio_pool *, tercio__chunk *, const tercio_block *blocks, uint32_t lent_to);
/* A pending message of one item is dropped; its answer is TERCIO_ECANCELED. */
void tercio__cancel_pending(tercio_pool *, tercio__chunk *);
/* What is pending, of one run or of all (NULL), is dropped without an answer. */
void tercio__drop_pending(tercio_pool *, tercio_run *);
/* Under threading: a message that nobody will read. It is handed to host->drop once the lock is free. */
void tercio__garbage(tercio_pool *, const void *head, size_t size, uint32_t n_items, uint32_t skip, bool is_answer);
void tercio__drop_garbage(tercio_pool *); /* not under the lock */
/* True when some worker could take a message of this run now. */
bool tercio__has_room(tercio_run *);
/* One more message may wait in the pool. */
bool tercio__may_hold(const tercio_pool *);
/* The message is answered, or over: it counts no more. */
void tercio__unhold(tercio_pool *, tercio__chunk *);
/* Nobody waits for the single answers of this run. */
bool tercio__is_quiet(const tercio_run *);
/* All that it got is answered, so far as its answers were read: it runs nothing. Messages are answered in order. */
static inline bool tercio__has_answered_all(const tercio__worker *worker)
{
    const tercio__sender *sender = &worker->sender;
    const tercio__chunk *newest = &worker->inflight[(sender->tail - 1) % TERCIO__SLOTS];
    return sender->tail == sender->reclaimed || (!newest->over && newest->done == newest->n_items);
}
/* It takes messages, and has finished all that it got, whether we have taken notice or not. */
bool tercio__has_done_all(const tercio__worker *);

/* Messages in the worker's ring, those included that it has passed without our notice. */
static inline uint64_t tercio__load_of(const tercio__worker *worker)
{
    return worker->sender.tail - worker->sender.reclaimed;
}
static inline bool tercio__accepts(const tercio__worker *worker)
{
    return worker->state == TERCIO_STATE_START && !worker->goodbye;
}
/* The run's next message may wait on pending, though the host didn't ask for that. */
bool tercio__may_queue(const tercio_run *, uint32_t n_items);

/* ---- order.c: the order of a run within each worker ---------------------------------------------------------------- */

/* Each worker begins the run's messages in their order, as far as order.c says. */
static inline bool tercio__is_ordered(const tercio_run *run)
{
    return !run->options.notify;
}
/* The worker may be handed message `turn` of the run: it goes on in its order, and takes no place that a message on
 * pending needs. Only asked while the run has any there. */
bool tercio__may_have(const tercio__worker *, const tercio_run *, uint64_t turn);
/* A worker that can't have the pending message now will be able to, so the message waits; false: any worker may have it. */
bool tercio__is_worth_waiting(tercio_pool *, const tercio__chunk *);
/* The worker is new: what its predecessor has begun counts no more. */
void tercio__order_anew(const tercio__worker *);
/* Puts a message on pending: behind those of its run that come before it, else in front. */
void tercio__insert_pending(tercio_pool *, tercio__chunk *);
/* Moves work from a loaded worker's ring to one that has nothing. more_comes: not of runs whose input goes on. */
void tercio__balance(tercio_pool *, bool more_comes);

/* ---- wakes.c ------------------------------------------------------------------------------------------------------ */

/* What was published for it comes first. Under the lock, or where the worker's channel stays. */
void tercio__wake(const tercio__worker *);
/* Room in its up ring was given back: only if it waits for that. */
void tercio__wake_for_room(const tercio__worker *);
/* A hint: tercio__wake is sure. */
bool tercio__is_asleep(const tercio__worker *);
/* There are more workers than CPUs. False, too, where memory is short. */
bool tercio__is_crowded(tercio_pool *);
/* More messages follow at once, and one of n_items is so quick that its wake may be put off. Under the lock. */
bool tercio__may_wake_later(tercio_run *, uint32_t n_items);
/* ... the one for what `worker` has just got, until tercio__wake_owed. Under the lock. Returns: false when it may not, and
 * is the caller's to do. */
bool tercio__wake_later(tercio_run *, tercio__worker *, uint32_t n_items);
/* Of those that are kept awake the one whose turn it is, if it has done all that it had; NULL: it has not, or there is
 * none. take: and the next one's turn comes. Under the lock. */
const tercio__worker *tercio__next_kept(const tercio_pool *);
tercio__worker *tercio__take_kept(tercio_pool *);
/* Wakes all whose wake was put off. Under the lock. */
void tercio__wake_owed(tercio_pool *);
/* For the keeper, under the lock: wakes those whose wake was put off too long ago. Returns: when to look again; 0: need not. */
uint64_t tercio__check_owed(tercio_pool *);

/* ---- inbox.c: results on their way ------------------------------------------------------------------------------ */

/* A result without its bytes. */
typedef struct {
    uint64_t index, cookie, peak_rss;
    int32_t status, code, signal, kind, pid;
    uint32_t worker, attempts, n_blocks;
    uint32_t n_items; /* of a row; 0: one */
    size_t out_size;
    uint32_t message_size; /* with the zero at its end; 0: none */
    bool out_of_memory;
} tercio__entry;

/* Copies an entry to the end, with its blocks, bytes and message. Returns 0 or TERCIO_ENOMEM. */
int tercio__inbox_add(tercio__inbox *, const tercio__entry *, const tercio_block *blocks, const void *out,
                      const char *message);
/* The next entry, its bytes in place; false: none. */
bool tercio__inbox_take(tercio__inbox *, tercio_result *);
void tercio__inbox_release(tercio__inbox *, tercio_result *);
/* Hands every unread entry to `drop` (may be NULL) and frees all but pages that still have entries out. */
void tercio__inbox_clear(tercio__inbox *, void (*drop)(void *user, tercio_result *), void *user);
/* ... and those, too: nobody will look at what is out any more. */
void tercio__inbox_end(tercio__inbox *);
static inline bool tercio__inbox_empty(const tercio__inbox *inbox)
{
    return inbox->first == NULL;
}

/* ---- collect.c: from rings to inboxes --------------------------------------------------------------------------- */

/* Reads all that workers have said, reclaims slots, hands out pending work; and rings all those who have something of it.
 * Under the lock. */
void tercio__pump(tercio_pool *);
/* Its two halves, for the keeper, which has the host notified by itself. */
void tercio__gather(tercio_pool *);
void tercio__tell_callers(tercio_pool *);
/* A run has something to take, or nothing more will come. Under the lock. */
bool tercio__has_something(const tercio_run *);
/* Has the keeper notify the host of what came for runs that no caller is looking after just now. Under the lock. */
void tercio__tell_host(tercio_pool *);
void tercio__pump_worker(tercio__worker *);
/* An answer of the engine's own for the next item of a chunk; index and cookie are filled in here. */
void tercio__answer(tercio__chunk *, tercio__entry, const char *message);
/* A run that the host looks after has results. Under the lock. */
bool tercio__host_has_news(const tercio_pool *);
/* True when a ring holds something unread. Without the lock. */
bool tercio__has_news(const tercio_pool *);
/* Gives back the large parts of a result that nobody has taken. */
void tercio__return_blocks(tercio_pool *, tercio_result *);
/* Drops unread entries of an inbox. */
void tercio__drop_inbox(tercio_pool *, tercio__inbox *);

/* ---- run.c ------------------------------------------------------------------------------------------------------- */

int tercio__run_next(tercio_run *, double timeout, tercio_result *);
/* Hands in what `next` has (false: nothing more) until there is no room, under one lock. *landed: items that have landed
 * in all. Returns: how many messages were taken (their last one was not where `next` is asked again for it), or an error
 * as tercio_push. */
int tercio__push_all(tercio_run *, bool (*next)(void *user, tercio_message *), void (*taken)(void *user), void *user,
                     uint64_t *landed);
int tercio__run_wait(tercio_run *, double timeout, bool or_room, const sigset_t *);
/* Returns when nobody looks at channels without the lock. Under the lock, which is free meanwhile. */
void tercio__stop_spinners(tercio_pool *);
/* Rings whoever waits for this run. Under the lock. */
void tercio__run_ring(tercio_run *);
/* Rings all who wait in the pool. Under the lock. */
void tercio__ring_all(tercio_pool *);
/* A message that was held is answered: rings the callers of tercio_wait_room. Under the lock. */
void tercio__ring_for_room(tercio_pool *);
/* Lets workers ring the keeper where no caller will look after queued work. Under the lock. */
void tercio__arm_keeper(tercio_pool *, bool always);
/* What a public call on a run or pool begins with: 0, TERCIO_ECLOSED or TERCIO_EFORKED. */
int tercio__run_check(const tercio_run *);
/* Detaches a run from its pool, which goes. Under the lock. */
void tercio__run_orphan(tercio_run *);
/* Sleeps on the pool's caller bell until something happened, whatever it is (tercio_finish, tercio_open); with `sigmask`
 * (may be NULL) installed, as tercio_wait has it. Under the lock, which is free meanwhile. Returns: 0; TERCIO_EINTERRUPTED;
 * TERCIO_EAGAIN at the deadline. */
int tercio__pool_wait(tercio_pool *, uint64_t deadline, const sigset_t *sigmask);

/* ---- context.c: what a run sends to each worker once -------------------------------------------------------------- */

int tercio__context_new(tercio_pool *, const tercio_bytes *parts, size_t n_parts, tercio__context **);
void tercio__context_unref(tercio_pool *, tercio__context *);
/* Keeps the context until the pool and its threads are gone: a thread that was left behind may open it yet. Under the lock. */
void tercio__context_strand(tercio_pool *, tercio__context *);
/* Frees a list of them; their blocks go with the arena. */
void tercio__contexts_free(tercio__context *first);
/* Packs parts into pinned blocks. Under the lock. */
int tercio__pack(tercio_pool *, const tercio_bytes *parts, size_t n_parts, tercio_block *block, tercio_block **blocks,
                 size_t *n_blocks);
/* One block, without parts of its own, of pieces one behind the other. Under the lock. */
int tercio__pack_pieces(tercio_pool *, const tercio_bytes *pieces, size_t n, tercio_block *block);
/* What a packed block begins with. */
typedef struct {
    uint64_t magic, head_size, n_blocks, reserved[5]; /* a cache line: what follows is aligned like it */
} tercio__packed;

/* ---- linger.c: shared memory that was used lately ------------------------------------------------------------------- */

/* Blocks of so many bytes were filled or came. Under the lock. */
void tercio__note_moved(tercio_pool *, uint64_t bytes);
/* The keeper's: gives free memory back when nothing large moves any more. Under the lock. Returns: when to look again;
 * 0: not before something moves. */
uint64_t tercio__linger(tercio_pool *);

/* ---- forked.c: copies of pools in forked children ------------------------------------------------------------------ */

/* The list of the pools that can be closed. */
void tercio__pool_enlist(tercio_pool *);
void tercio__pool_delist(tercio_pool *);
/* tercio_close in a child that was forked since the pool was opened. */
void tercio__pool_forget(tercio_pool *);
/* tercio__context_unref there: its blocks are left alone. */
void tercio__context_forget(tercio__context *);

/* ---- metrics.c ---------------------------------------------------------------------------------------------------- */

/* Takes over what a worker's channel tells about its longest items. Lock held. */
void tercio__keep_longest(tercio__worker *);

/* ---- deaths.c ----------------------------------------------------------------------------------------------------- */

/* Before the first worker: what the kernel's counters say then. */
void tercio__note_memory_kills(tercio_pool *);
/* A worker's process or thread is gone. A thread that has not said goodbye may still run: what it may touch stays until it
 * ends. Under the lock. */
void tercio__worker_gone(tercio__worker *, const tercio__exit *);
/* Collects the worker if it is gone. Under the lock. Returns: true when it is. */
bool tercio__worker_collect(tercio__worker *);
/* Gives back the memory of dead workers' arenas, once no result lies there. Under the lock. */
void tercio__discard_dead(tercio_pool *);

/* ---- pool.c ---------------------------------------------------------------------------------------------------------- */

/* Closes the pool's own descriptors and frees what tercio_open allocates and keeps in its place, the pool too. */
void tercio__pool_free(tercio_pool *);

/* ---- supervise.c -------------------------------------------------------------------------------------------------- */

/* Before the first worker: who collects those that began, when another one couldn't, hears of their ends here. */
int tercio__keeper_listen(tercio_pool *);
int tercio__keeper_start(tercio_pool *);
/* Threads of the engine's own in this process: they hold no lock that a forked child would miss. */
int tercio__count_own_thread(int change);
/* This thread is the pool's supervisor, or one of its workers. */
void tercio__own_thread_of(const tercio_pool *, bool supervises);
/* The keeper does nothing any more, but its thread stays: workers that it forked end with it. */
void tercio__keeper_stop(tercio_pool *);
void tercio__keeper_end(tercio_pool *);
/* Makes result->out of the block that it lies in; the view is to be closed after it. Returns: whether it was one. */
bool tercio__make_whole(tercio_pool *, tercio_result *, tercio_view *);
/* Ends the worker by force: a process is killed, a thread is left behind. Under the lock, which is free meanwhile where it
 * is a thread. */
void tercio__kill_worker(tercio__worker *);
/* As tercio__kill_worker; but a thread is asked to stop, and left behind by the supervisor after the grace. */
void tercio__end_by_force(tercio__worker *);
/* The message that the worker runs, or would take next; NULL: there is none. One that it has finished lies before it, though
 * its slot may not be reclaimed yet. Under the lock. */
tercio__chunk *tercio__running_chunk(tercio__worker *, uint64_t *sequence);
/* Asks the worker to stop message `sequence`, which it has taken; the keeper kills it after the grace. Under the lock. */
void tercio__interrupt_worker(tercio__worker *, uint64_t sequence);
/* What is under way is about to be dropped: it must not look like an end of the runs. Under the lock. */
void tercio__runs_lose(tercio_pool *, int error);
void tercio__pool_fail(tercio_pool *, int error, const tercio__entry *, const tercio_block *, const void *out,
                       const char *message);
/* Starts every worker that has none. Not under the lock. */
int tercio__start_missing(tercio_pool *);

/* ---- worker.c ------------------------------------------------------------------------------------------------------ */

/* What a worker knows when it begins. */
typedef struct {
    tercio__file *file;
    tercio__page *page;
    tercio__channel *channel;
    const tercio_host *host;
    void *host_user;
    tercio_method method;
    int caller_bell, keeper_bell;
    int parent_pid;
    const int *descriptors; /* tercio_call_descriptor */
    size_t n_descriptors;
    bool process; /* it owns its process */
} tercio__worker_start;

/* A worker's whole life, from the gate to its goodbye. The process, or thread, ends after it. */
void tercio__worker_live(const tercio__worker_start *);
/* Maps page and channel, and lives. For processes: never returns. `descriptors` stay the caller's. */
_Noreturn void tercio__worker_process(int file_fd, int caller_bell, int keeper_bell, uint32_t index,
                                      const tercio_host *, void *host_user, int parent_pid, bool lasting, int line,
                                      const int *descriptors, size_t n_descriptors);
/* The thread that calls this ends no sooner than the process, or than the pool's last worker. Not under the lock. */
bool tercio__lasting_thread(tercio_pool *);

/* The signal that interrupts what a worker runs. */
int tercio__interrupt_signal(void);

#endif
