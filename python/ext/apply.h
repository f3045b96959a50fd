/* SPDX-License-Identifier: MIT
 *
 * Tasks applied one by one, as their rooms see them: py_apply.c sends them, py_settle.c takes their results out, py_async.c
 * is the AsyncResult that users hold.
 */
#ifndef TERCIO_EXT_APPLY_H
#define TERCIO_EXT_APPLY_H

#include "codec.h"

typedef struct waiter {
    struct waiter *next;
    AsyncObject *result; /* NULL: waits for all */
    int fd;              /* the pipe's end to write to */
    bool woken;
} waiter;

struct apply_run {
    apply_run *next;
    tercio_run *run;  /* NULL: closed */
    tercio_run *late; /* closed while results of it were being read: ended after that */
    unsigned reading;
    CallObject *call; /* strong */
    double timeout;
    unsigned retries;
    uint64_t next_index;
    size_t pending;
    unsigned long pumper;          /* thread that takes results out; 0: none */
    bool in_wait;                  /* ... and it is in the engine, without the GIL */
    AsyncObject *done, **done_end; /* answered, in order, each owned: to be completed by the pumper */
    waiter *waiters;
};

struct async_object {
    PyObject_HEAD
    PoolObject *pool; /* strong until it is ready */
    apply_run *at;    /* lives as long as the pool */
    PyObject *value;  /* result, or exception */
    PyObject *callback, *error_callback;
    PyObject *argument; /* (args, kwargs), for the text of an error; NULL under threading or when large */
    PyObject *futures;  /* list of (loop, future) that await it, or NULL */
    AsyncObject *next_done;
    uint64_t index;
    bool ready, failed;
    bool returns_errors; /* a failure is its result */
};

/* py_settle.c. Has the pool own it until its result is there; 0, or -1 with an exception. */
int apply_slot_take(PoolObject *, AsyncObject *, uint64_t *cookie);
/* The AsyncResult of a cookie, now the caller's; NULL: an answer that nobody waits for. */
AsyncObject *apply_slot_give(PoolObject *, uint64_t cookie);
/* Its result or exception, which is taken over; NULL: memory is out. */
void apply_answer(AsyncObject *, PyObject *value, bool failed);
/* ... and then all that follows: callbacks, and whoever waits. */
void apply_complete(AsyncObject *);
/* Takes out what is there, if nobody is at it. */
void apply_look(AsyncObject *);
/* Works and waits until the result is ready; see there. Returns 0; TERCIO_EAGAIN; WAIT_RAISED. */
int apply_wait(PoolObject *, apply_run *, AsyncObject *, double timeout, bool fresh);
/* What became of one that is ready: a new reference, or NULL and its exception raised. */
PyObject *apply_outcome(AsyncObject *);

/* py_async.c: asks the loop of a (loop, future) to settle it, in its own thread. */
void async_tell_future(AsyncObject *, PyObject *pair);

#endif
