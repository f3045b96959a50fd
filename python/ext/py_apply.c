/* SPDX-License-Identifier: MIT
 *
 * apply: tasks one by one. Tasks of the same Call (and limits) share one long-lived run of the engine, an apply_run. What
 * becomes of them is py_settle.c's.
 */
#include "apply.h"

static apply_run *run_for(PoolObject *pool, CallObject *call, double timeout, unsigned retries)
{
    for (apply_run *at = pool->applies; at != NULL; at = at->next)
        if (at->call == call && at->timeout == timeout && at->retries == retries && at->run != NULL)
            return at;
    apply_run *at = PyMem_Calloc(1, sizeof *at);
    if (at == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    tercio_map_options options = {
        .size = sizeof options,
        .timeout = timeout,
        .retries = retries,
        .unordered = true,
        .notify = true,
    };
    if (call_open_run(call, pool, &options, &at->run) < 0) {
        PyMem_Free(at);
        return NULL;
    }
    at->done_end = &at->done;
    Py_INCREF(call);
    at->call = call;
    at->timeout = timeout;
    at->retries = retries;
    at->next = pool->applies;
    pool->applies = at;
    return at;
}

static encoder *take_encoder(PoolObject *pool, int serializer)
{
    encoder *e = pool->spare;
    pool->spare = NULL; /* pickling runs code that may apply, too */
    if (e == NULL) {
        e = PyMem_Calloc(1, sizeof *e);
        if (e == NULL) {
            PyErr_NoMemory();
            return NULL;
        }
        if (encoder_init(e, pool->env.st, serializer) < 0) {
            encoder_fini(e);
            PyMem_Free(e);
            return NULL;
        }
    }
    e->serializer = serializer;
    return e;
}

static void give_encoder(PoolObject *pool, encoder *e)
{
    encoder_reset(e);
    if (pool->spare == NULL) {
        pool->spare = e;
        return;
    }
    encoder_fini(e);
    PyMem_Free(e);
}

/* A thread that is in a callback (or reads a result, which may run anything) has others wait for it, and a thread that is
 * a worker runs what it would wait for: both go beyond the bound. */
static bool may_wait(PoolObject *pool)
{
    unsigned long me = PyThread_get_thread_ident();
    if (pool->supervisor == me || worker_is_of(pool->env.st, pool))
        return false;
    for (apply_run *at = pool->applies; at != NULL; at = at->next)
        if (at->pumper == me)
            return false;
    return true;
}

/* Hands the task in, as soon as there is room. Returns 0, or -1 with an exception. */
static int push(PoolObject *pool, apply_run *at, AsyncObject *a, tercio_message *message)
{
    message->exceeds = !may_wait(pool);
    for (;;) {
        if (at->run == NULL || pool_unusable(pool)) { /* pickling, or a signal's handler, may have ended the pool */
            if (!PyErr_Occurred())
                error_raise(pool->env.st, NULL, TERCIO_ECLOSED);
            return -1;
        }
        if (apply_slot_take(pool, a, &message->cookie) < 0)
            return -1;
        at->pending++;
        int error = tercio_push(at->run, message, true);
        if (error > 0)
            return 0;
        Py_DECREF(apply_slot_give(pool, message->cookie));
        at->pending--;
        if (error == 0)
            error = pool_wait_room(pool);
        if (error == WAIT_RAISED)
            return -1;
        if (error != 0 && error != TERCIO_EINTERRUPTED) {
            error_raise(pool->env.st, pool, error);
            return -1;
        }
    }
}

/* Sends the task; its failure to be pickled is its own error. Returns 0, or -1 with an exception. */
static int send(PoolObject *pool, apply_run *at, AsyncObject *a, PyObject *argument, bool attended)
{
    bool threading = pool->method == TERCIO_THREADING, flag;
    int done = -1;
    encoder *e = take_encoder(pool, at->call->serializer);
    if (e == NULL)
        return -1;
    a->index = at->next_index++;
    if ((threading ? encode_reference(e, argument, true) : encode_item(e, argument, CODEC_EXPLICIT)) < 0) {
        PyObject *exc = error_not_picklable(pool->env.st, "argument", at->call, a->index);
        if (exc != NULL && PyObject_IsInstance(exc, PyExc_Exception) != 1) {
            core_raise(exc);
            Py_DECREF(exc);
            goto done;
        }
        at->pending++;
        apply_answer(a, exc, true);
        apply_complete(a);
        done = 0;
        goto done;
    }
    tercio_message message = {.size = sizeof message, .index = a->index, .n_items = 1, .attended = attended};
    message.parts = encoder_parts(e);
    message.n_parts = e->n_parts;
    if (!threading && e->n_parts == 1) {
        Py_INCREF(argument);
        a->argument = argument;
    }
    done = push(pool, at, a, &message);
    if (done < 0 && threading)
        Py_DECREF(reference_at(e->data, 0, &flag));
done:
    give_encoder(pool, e);
    return done;
}

static PyObject *optional(PyObject *v)
{
    if (v == NULL || v == Py_None)
        return NULL;
    Py_INCREF(v);
    return v;
}

PyObject *async_apply(PoolObject *pool, PyObject *args, PyObject *kwargs, bool wait)
{
    static char *names[] = {"call",         "args",    "kwargs",        "callback", "error_callback",
                            "task_timeout", "retries", "return_errors", NULL};
    core_state *st = pool->env.st;
    PyObject *call, *positional, *named = Py_None, *callback = NULL, *error_callback = NULL;
    double timeout = 0;
    unsigned retries = 0;
    int return_errors = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!O!|O$OOdIp:apply", names, st->call_type, &call, &PyTuple_Type,
                                     &positional, &named, &callback, &error_callback, &timeout, &retries,
                                     &return_errors))
        return NULL;
    apply_run *at = run_for(pool, (CallObject *)call, timeout, retries);
    if (at == NULL)
        return NULL;
    PyObject *argument = PyTuple_Pack(2, positional, named), *result = NULL;
    AsyncObject *a = argument == NULL ? NULL : (AsyncObject *)st->async_type->tp_alloc(st->async_type, 0);
    if (a == NULL)
        goto done;
    Py_INCREF(pool);
    a->pool = pool;
    a->at = at;
    a->returns_errors = return_errors != 0;
    a->callback = optional(callback);
    a->error_callback = optional(error_callback);
    if (send(pool, at, a, argument, wait) < 0) {
        a->at = NULL;
        goto done;
    }
    if (!wait) {
        Py_INCREF(a);
        result = (PyObject *)a;
    } else if (a->ready || apply_wait(pool, at, a, -1, true) == 0) {
        result = apply_outcome(a);
    }

done:
    Py_XDECREF(argument);
    Py_XDECREF((PyObject *)a);
    return result;
}
