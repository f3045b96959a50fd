/* SPDX-License-Identifier: MIT
 *
 * A run: the results of a group of messages, in one inbox.
 */
#ifndef TERCIO_STATE_RUN_H
#define TERCIO_STATE_RUN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "state/message.h"
#include "state/result.h"
#include "tercio.h"

/* How a run that a face holds for its user answers in place of the engine. */
typedef struct {
    int (*next)(tercio_run *, double timeout, tercio_result *);
    void (*release)(tercio_run *, tercio_result *); /* before the engine's own release */
    void (*close)(tercio_run *);                    /* before the run is freed */
} tercio__face_calls;

struct tercio_run {
    tercio_pool *pool; /* NULL: the pool is gone */
    tercio_run *next, *previous;
    const tercio__face_calls *face_calls; /* NULL: no face holds it */
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
    enum { NO_NEWS, NEWS, NEWS_TOLD } news; /* results that the host wasn't notified of; TOLD: the supervisor will */
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

/* Each worker begins the run's messages in their order, as far as order.c says. */
static inline bool tercio__is_ordered(const tercio_run *run)
{
    return !run->options.notify;
}

/* Nobody waits for the single answers of this run. */
static inline bool tercio__is_quiet(const tercio_run *run)
{
    return run->options.low_water && !run->options.notify && !run->bell_public;
}

#endif
