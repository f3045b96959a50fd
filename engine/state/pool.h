/* SPDX-License-Identifier: MIT
 *
 * A pool as the process that opened it sees it: its workers, its runs, and what is under way. All of it lies in this
 * process's heap and is guarded by pool->lock, a lock of this process alone; where a field is read without it, it says so.
 * No callback of the host runs, and nothing waits, under the lock.
 */
#ifndef TERCIO_STATE_POOL_H
#define TERCIO_STATE_POOL_H

#include <assert.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/forks.h"
#include "channel/layout.h"
#include "memory/block.h"
#include "memory/views.h"
#include "state/message.h"
#include "state/result.h"
#include "state/run.h"
#include "state/worker.h"
#include "tercio.h"

struct tercio__starter;

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
    TERCIO__SUPERVISOR_NONE, /* it was never started, or is joined */
    TERCIO__SUPERVISOR_RUNS,
    TERCIO__SUPERVISOR_STOPS, /* it is asked to park */
    TERCIO__SUPERVISOR_PARKED, /* it does nothing any more, and lives on for workers that end with the thread that forked them */
    TERCIO__SUPERVISOR_RELEASED /* it may end */
};

/* A caller in tercio__pool_wait, on its own stack. */
typedef struct tercio__pool_waiter {
    struct tercio__pool_waiter *next;
    int waits_on; /* the caller bell; or, where there is a leader, a bell of its own */
    bool wants_room;
} tercio__pool_waiter;

struct tercio_pool {
    pthread_mutex_t lock;
#ifndef NDEBUG
    bool is_locked; /* by `locker` */
    pthread_t locker;
#endif
    uint32_t fork_generation; /* of the process that opened it; read without the lock */
    uint64_t blocked;         /* signals, in the thread that opened it: workers keep that mask */
    tercio_method method;
    tercio_options options; /* pointers inside are ours, or borrowed as tercio.h says */
    const tercio_host *host;
    void *host_user;
    void (*explain)(tercio_result *); /* makes code and message of what a failed task left; NULL: the host does */
    const struct tercio__starter *starter;
    void *starter_data;
    int starter_events[2]; /* descriptors that the supervisor watches for it; -1: none */

    tercio__file *file;
    tercio__page *page;      /* shared */
    unsigned char *channels; /* shared: n_workers channels */
    uint64_t channel_bytes, channels_bytes;
    tercio__arena *arena;
    uint64_t lent_bytes; /* blocks of chunks under way */

    unsigned n_workers, n_live;
    tercio__worker *workers;
    unsigned turn, level; /* dispatch.c */
    bool is_spread;       /* every worker that isn't hot has a message */
    unsigned last_active;
    const tercio__worker *last_in_turn;
    tercio__worker **hot; /* wake.c: those that are kept awake while more messages follow */
    unsigned n_hot, hot_at;
    bool counted_cpus;     /* hot is NULL because each worker has one */
    uint64_t owed_since;   /* when the first wake was put off that is still owed; 0: none is */
    uint64_t look_at_owed; /* for when the supervisor's timer is set to look after them; 0: it isn't */
    uint64_t look_at_long; /* when a message that holds others up will have taken long; 0: none does */

    tercio_run *runs;
    tercio__chunk *pending, **pending_end;
    uint64_t pending_bytes; /* of their copies */
    uint64_t n_held;        /* messages that were pushed to wait in the pool, if need be, and aren't answered */
    uint32_t next_context;
    unsigned n_waiting;                /* callers asleep */
    tercio__pool_waiter *pool_waiters; /* those of them that are in tercio__pool_wait */

    int caller_bell, supervisor_bell, set;
    int *descriptors; /* that fresh workers get copies of: ours */
    uint64_t (*descriptor_identities)[2];
    size_t n_descriptors;
    int lifeline[2];          /* for workers that a thread starts which may end before the process; -1: not needed */
    bool has_leader;          /* somebody waits on caller_bell */
    _Atomic uint64_t spin_ns; /* how long a caller looks before it sleeps */
    _Atomic unsigned spin_skips;
    unsigned n_spinning;   /* callers who look at channels without the lock */
    _Atomic bool spin_off; /* they are asked to stop */

    pthread_t supervisor;
    int supervisor_state; /* TERCIO__SUPERVISOR_... */
    pthread_cond_t supervisor_moved;
    bool needs_start;           /* a worker has to be replaced */
    bool started;               /* the first workers were */
    tercio__context *stranded;  /* those that a thread which was left behind may open yet */
    tercio__range *dead_ranges; /* segments of workers that died */
    size_t n_dead_ranges;
    uint64_t moved_bytes; /* of blocks, since the supervisor looked last */
    uint64_t trim_at;     /* when the supervisor will look whether free memory can go; 0: it has, or there is little */
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

/* Debug builds know who holds the lock; in a release build nothing is left of it. */
static inline void tercio__note_locked(tercio_pool *pool, bool is_locked)
{
    (void)pool, (void)is_locked;
#ifndef NDEBUG
    pool->locker = pthread_self();
    pool->is_locked = is_locked;
#endif
}

/* The caller holds the lock. */
static inline void tercio__assert_locked(const tercio_pool *pool)
{
    (void)pool;
    assert(pool->is_locked && pthread_equal(pool->locker, pthread_self()));
}

static inline void tercio__lock(tercio_pool *pool)
{
    pthread_mutex_lock(&pool->lock);
    tercio__note_locked(pool, true);
}

static inline void tercio__unlock(tercio_pool *pool)
{
    tercio__note_locked(pool, false);
    pthread_mutex_unlock(&pool->lock);
}

/* Waits on a condition of the pool's; the lock is free meanwhile. */
static inline void tercio__wait_unlocked(tercio_pool *pool, pthread_cond_t *condition)
{
    tercio__note_locked(pool, false);
    pthread_cond_wait(condition, &pool->lock);
    tercio__note_locked(pool, true);
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

/* One more message may wait in the pool. */
static inline bool tercio__may_hold(const tercio_pool *pool)
{
    return pool->n_held == 0 || (pool->n_held < pool->options.max_pending &&
                                 pool->pending_bytes + pool->lent_bytes <= pool->page->arena_bytes);
}

/* What a public call on a run or pool begins with: 0, TERCIO_ECLOSED or TERCIO_EFORKED. */
static inline int tercio__run_check(const tercio_run *run)
{
    if (run == NULL)
        return TERCIO_EINVAL;
    if (run->pool == NULL)
        return TERCIO_ECLOSED;
    return tercio__run_is_ours(run) ? 0 : TERCIO_EFORKED;
}

#endif
