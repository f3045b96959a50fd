/* SPDX-License-Identifier: MIT
 *
 * A worker as its own process or thread sees it. py_enter.c brings it in and out, py_worker.c works, py_failure.c says
 * what went wrong.
 */
#ifndef TERCIO_EXT_WORKER_H
#define TERCIO_EXT_WORKER_H

#include "codec.h"

#include <signal.h>

struct worker {
    core_state *st;
    PyObject *module; /* strong: a thread that was left behind still needs the state */
    tercio_call *call;
    void (*rest)(tercio_call *); /* until it has begun: what worker_live has to run */
    PoolObject *pool;            /* to compare with; not to be followed by threads that were left behind */
    PyThreadState *ts;
    PyObject *id, *shared, *state;
    encoder answer;
    int serializer;
    bool threading, busy;
    bool told;        /* an exception was put into this thread from outside, or raised by a signal's handler */
    bool interrupted; /* ... and it ended the item that runs */
    CallObject *now;  /* what runs */
    PyObject *around; /* ... instead of its function: that for a worker's begin or end; borrowed */
    PyObject *item;   /* ... on, as long as it may be described; borrowed */
    bool explicit_arguments;
    uint64_t index;
    unsigned long ident;
    tercio_run *waits_for; /* in waits_in; NULL: its end */
    sigset_t signals;      /* before pause: those that it blocks while it runs */
    PoolObject *waits_in;  /* a pool of its own that this thread waits in; an interruption has to end that wait */
    struct worker *next;   /* of st->thread_workers */
};
typedef struct worker worker;

static inline worker *worker_of(tercio_call *call)
{
    return *tercio_call_user(call); /* NULL while it is not in */
}

/* py_enter.c: callbacks of the host's table. */
void worker_before_fork(void *user);
void worker_after_fork(void *user, bool in_child);
int worker_enter(void *user, tercio_call *, tercio_bytes prepare);
void worker_live(void *user, tercio_call *, void (*rest)(tercio_call *));
void worker_leave(void *user, tercio_call *);
void worker_lost(void *user, tercio_call *);
void worker_signals(void *user, tercio_call *);

/* Has what is raised where nothing can raise come again, if it is an interruption. Returns: 0, or -1 with an exception. */
int worker_catch_unraisable(core_state *);
/* Returns: false where this thread is no worker of a pool of threads. */
bool worker_interrupt_again(core_state *);

/* py_failure.c. Turns what is raised into the answer. Never fails; nothing is raised afterwards. `reference_allowed`: the
 * answer is read once (under threading it may then be the exception itself). */
void worker_put_error(worker *, CallObject *, PyObject *item, bool explicit_arguments, bool reference_allowed);
/* An interruption may fall between a lock's being taken and the place that would give it back. The import system's locks
 * are such ones: others would wait for them for ever, and this thread, which has one, for others' at its next import. */
void worker_let_go_of_imports(worker *);
/* Leaves what is raised for the parent, as an error. Returns 1, what callbacks return then. */
int worker_leave_error(worker *, CallObject *);

#endif
