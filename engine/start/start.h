/* SPDX-License-Identifier: MIT
 *
 * How workers come into being: one table of functions, one room for each method. A started worker stands at the gate
 * of its channel until the parent holds a handle on it.
 */
#ifndef TERCIO_START_START_H
#define TERCIO_START_START_H

#include <pthread.h>
#include <stdbool.h>

#include "plat/plat.h"
#include "state/message.h"
#include "tercio.h"

/* What start made; start_worker writes it down under the lock. */
typedef struct {
    int pid, handle; /* 0, -1: a thread */
    pthread_t thread;
    bool thread_runs;
    void *data;
} tercio__started;

typedef struct tercio__starter {
    /* What the pool has to know of such workers; each is false unless said. */
    bool processes;         /* they are processes; else threads of this one */
    bool children_are_ours; /* ... children of this process: their handles tell their ends, their groups are theirs */
    bool copies_process;    /* ... that begin as copies of this process, and so of the thread that starts them */
    bool takes_descriptors; /* ... that are new programs, which get the descriptors of options.descriptors */
    /* Once, before the first worker; may be NULL. */
    int (*open)(tercio_pool *);
    /* Starts worker->index; its channel is ready. Not under the lock; one thread at a time (whoever opens the pool,
     * then the supervisor). On error nothing is left. */
    int (*start)(tercio__worker *, tercio__started *);
    /* Tells how a worker ended. Never blocks, but for the last instructions of a thread. Returns: 0; TERCIO_EAGAIN
     * while it lives. */
    int (*reap)(tercio__worker *, tercio__exit *);
    /* The pool doesn't look at the worker's channel any more; NULL where channels are the pool's memory. */
    void (*release)(tercio__worker *);
    /* A descriptor of tercio_pool.starter_events is readable; may be NULL. */
    void (*event)(tercio_pool *);
    /* After the last worker; may be NULL. */
    void (*close)(tercio_pool *);
    /* The same in a child that was forked since; of a pool that isn't whole, nothing may be looked at that changes. */
    void (*forget)(tercio_pool *);
} tercio__starter;

#endif
