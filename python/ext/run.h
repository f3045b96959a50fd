/* SPDX-License-Identifier: MIT
 *
 * A map under way, as its rooms see it: py_feed.c brings items in, py_take.c results out, window.c keeps what has a
 * number, py_run.c does the rest.
 */
#ifndef TERCIO_EXT_RUN_H
#define TERCIO_EXT_RUN_H

#include "codec.h"

#define MOST_READY 1024 /* results that an iteration keeps beyond what order asks for */
#define MOST_READY_BYTES ((size_t)64 << 20)

/* Objects by number; NULL where there is none. */
typedef struct {
    PyObject **slots;
    size_t capacity; /* a power of two, or 0 */
    uint64_t base;   /* numbers below are gone */
} window;

struct run_object {
    PyObject_HEAD
    PoolObject *pool; /* strong */
    CallObject *call; /* strong */
    PyObject *items;  /* the user's iterator; NULL when it has ended */
    tercio_run *run;  /* NULL: not opened yet, or closed */
    tercio_run *late; /* closed while a result of it was being read: ended after that */
    RunObject *next, *previous;
    bool opened, listed;
    /* as asked for */
    double chunk_size;
    uint64_t max_active, limit;
    uint64_t expected; /* items, as far as can be told; UINT64_MAX: unknown */
    unsigned lifespan, retries;
    double timeout;
    bool ordered, in_turn, adapt, return_errors;
    /* feeding */
    encoder encoder;
    bool plain;      /* no one's code is run for the next item */
    bool owes;       /* messages were pushed with `more` */
    bool pending;    /* the encoder holds a message that was refused */
    bool wants_room; /* the last feeding ended because the workers had none */
    bool fed;        /* no item will follow, and the engine knows */
    uint64_t message_index;
    uint32_t message_items;
    uint64_t taken;     /* items taken from the iterator */
    double edge;        /* chunk boundaries so far, with their fractions */
    PyObject *deferred; /* what the iterator raised: comes after the results of all before it */
    /* results */
    window results, arguments;
    uint64_t arrived; /* results there, failed ones included */
    size_t ready_bytes;
    bool ended; /* the engine has no more */
    bool lazy, busy, reading, close_wanted, closed, terminated;
    PyObject *failure; /* the first error: fails the map */
    double looked, released;
    tercio_result result;
};

int window_grow(window *, uint64_t number);

/* Makes the slot of that number; 0, or -1 with an exception. */
static inline int window_reach(window *w, uint64_t number)
{
    return number - w->base < w->capacity ? 0 : window_grow(w, number);
}

/* Room for all that will come, where that is known: fresh pages are zero, and cost nothing until they are used. */
void window_prepare(window *, uint64_t n);
/* Takes the object of that number out, or NULL. */
PyObject *window_take(window *, uint64_t number);
void window_clear(window *);
/* The first n slots as a list, which takes them over; NULL with an exception. */
PyObject *window_list(window *, size_t n);

static inline PyObject **window_at(const window *w, uint64_t number)
{
    return &w->slots[number & (w->capacity - 1)];
}

static inline bool window_has(const window *w, uint64_t number)
{
    return number >= w->base && number - w->base < w->capacity && *window_at(w, number) != NULL;
}

static inline bool run_is_ready(const RunObject *r)
{
    return window_has(&r->results, r->results.base);
}

/* py_take.c: the value goes to its place; takes the reference over. */
int run_place(RunObject *, uint64_t index, PyObject *value);
/* Takes out what is there. Returns the number of results; -1 with an exception. A failure is in r->failure. */
int run_drain(RunObject *);
/* The arguments' window follows the oldest item that is not answered; called now and then. */
void run_forget_arguments(RunObject *);

/* py_feed.c. When the encoder is there. */
void run_feed_prepare(RunObject *);
/* Hands in what the workers have room for. Returns the number of messages, or -1 with an exception. */
int run_feed(RunObject *);
/* Is called before anything of the user's runs: a worker that has a message is to begin. */
void run_flush(RunObject *);
/* The references of a message that was never handed in. */
void run_drop_pending(RunObject *);

#endif
