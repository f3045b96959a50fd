/* SPDX-License-Identifier: MIT
 *
 * A worker, as the parent sees it.
 */
#ifndef TERCIO_STATE_WORKER_H
#define TERCIO_STATE_WORKER_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "channel/channel.h"
#include "channel/layout.h"
#include "plat/plat.h"
#include "state/message.h"
#include "tercio.h"

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
    bool is_hot;                       /* has a place in pool->hot */
    unsigned n_busy;                   /* looks at it in a row that found it busy, while it has */
    bool owed;                         /* a wake that was put off */
    uint64_t stuck_at, stuck_sequence; /* order.c: when its next message was first seen not to have begun; 0: never */
};

/* All that it got is answered, so far as its answers were read: it runs nothing. Messages are answered in order. */
static inline bool tercio__has_answered_all(const tercio__worker *worker)
{
    const tercio__sender *sender = &worker->sender;
    const tercio__chunk *newest = &worker->inflight[(sender->tail - 1) % TERCIO__SLOTS];
    return sender->tail == sender->reclaimed || (!newest->over && newest->done == newest->n_items);
}

/* Messages in the worker's ring, those included that it has passed without our notice. */
static inline uint64_t tercio__load_of(const tercio__worker *worker)
{
    return worker->sender.tail - worker->sender.reclaimed;
}

static inline bool tercio__accepts(const tercio__worker *worker)
{
    return worker->state == TERCIO_STATE_START && !worker->goodbye;
}

/* It takes messages, and has finished all that it got, whether we have taken notice or not. */
static inline bool tercio__has_done_all(const tercio__worker *worker)
{
    return tercio__accepts(worker) &&
           (tercio__has_answered_all(worker) || tercio__sender_passed(&worker->sender) == worker->sender.tail);
}

#endif
