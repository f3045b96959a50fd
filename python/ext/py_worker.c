/* SPDX-License-Identifier: MIT
 *
 * The worker's side: what the engine calls in a worker, and around a fork. A process worker runs in its main thread,
 * a thread worker in a thread of the engine's that is attached to the interpreter that made the pool. Both hold the
 * GIL but between pause and resume.
 *
 * Answers are encode_value's bytes (status 0) or an error's (py_failure.c). Under threading both are one reference, which
 * is told by its size.
 */
#include "worker.h"

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#define STACK 16

/* ---- Letting others run ------------------------------------------------------------------------------------------ */

static void host_pause(void *user, tercio_call *call)
{
    (void)user;
    worker *w = worker_of(call);
    if (w == NULL)
        return;
    if (w->threading) {
        sigset_t all;
        sigfillset(&all); /* as in worker_is_here */
        pthread_sigmask(SIG_SETMASK, &all, &w->signals);
    }
    w->ts = PyEval_SaveThread();
}

static void host_resume(void *user, tercio_call *call)
{
    (void)user;
    worker *w = worker_of(call);
    if (w != NULL && w->ts != NULL) {
        PyThreadState *ts = w->ts;
        w->ts = NULL;
        PyEval_RestoreThread(ts);
        if (w->threading)
            pthread_sigmask(SIG_SETMASK, &w->signals, NULL);
    }
}

/* ---- Work ------------------------------------------------------------------------------------------------------- */

/* The arguments that come before the task's own: worker id, shared objects, worker state. Borrowed. -1: exception. */
static int leading(worker *w, CallObject *c, PyObject **stack)
{
    int n = 0;
    if (c->pass_worker_id)
        stack[n++] = w->id;
    if (c->pass_shared && w->shared != NULL)
        stack[n++] = w->shared;
    if (c->use_state) {
        if (w->state == NULL && (w->state = PyDict_New()) == NULL)
            return -1;
        stack[n++] = w->state;
    }
    return n;
}

static inline bool is_plain(PyObject *item)
{
    PyTypeObject *type = Py_TYPE(item);
    return type == &PyLong_Type || type == &PyUnicode_Type || type == &PyFloat_Type || item == Py_None ||
           type == &PyBool_Type;
}

static PyObject *invoke(worker *w, CallObject *c, PyObject *item, bool explicit_arguments)
{
    PyObject *small[STACK + 1], **large = NULL, **stack = small + 1;
    PyObject *args = NULL, *kwargs = NULL, *result = NULL;
    int before = leading(w, c, stack);
    if (before < 0)
        return NULL;
    if (!explicit_arguments && (!c->unpack || is_plain(item))) {
        stack[before] = item;
        return PyObject_Vectorcall(c->func, stack, (size_t)(before + 1) | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
    }
    if (call_unpack(c, item, explicit_arguments, &args, &kwargs) < 0)
        return NULL;
    size_t own = (size_t)PyTuple_GET_SIZE(args), n = (size_t)before + own;
    if (n > STACK) {
        large = PyMem_Malloc((n + 1) * sizeof *large);
        if (large == NULL) {
            PyErr_NoMemory();
            goto done;
        }
        memcpy(large + 1, stack, (size_t)before * sizeof *stack);
        stack = large + 1;
    }
    for (size_t i = 0; i < own; i++)
        stack[(size_t)before + i] = PyTuple_GET_ITEM(args, (Py_ssize_t)i);
    result = PyObject_VectorcallDict(c->func, stack, n | PY_VECTORCALL_ARGUMENTS_OFFSET, kwargs);

done:
    PyMem_Free(large);
    Py_DECREF(args);
    Py_XDECREF(kwargs);
    return result;
}

/* A task that forked: the copy isn't the worker and must never come back into its loop. */
static inline void end_stray(worker *w)
{
    if (tercio_call_stray(w->call))
        _exit(0);
}

/* Runs one item, whose reference is borrowed, and makes the answer. Returns the status to commit. */
static int run_item(worker *w, CallObject *c, PyObject *item, bool explicit_arguments)
{
    PyObject *result = NULL;
    if (w->threading || PyErr_CheckSignals() == 0)
        result = invoke(w, c, item, explicit_arguments);
    end_stray(w);
    encoder_reset(&w->answer);
    if (result == NULL)
        goto fail;
    if (w->threading) {
        if (encode_reference(&w->answer, result, false) < 0)
            goto fail;
    } else if (encode_value(&w->answer, result) < 0) {
        PyObject *exc = error_not_picklable(w->st, "result", c, w->index);
        if (exc != NULL) {
            core_raise(exc);
            Py_DECREF(exc);
        }
        goto fail;
    }
    Py_DECREF(result);
    return 0;

fail:
    worker_put_error(w, c, item, explicit_arguments, true);
    Py_XDECREF(result);
    return TERCIO_EFAILED;
}

/* A reference in the answer that the engine has not taken. */
static void take_back(worker *w)
{
    bool flag;
    if (w->threading && w->answer.size == sizeof(void *))
        Py_DECREF(reference_at(w->answer.data, 0, &flag));
    w->answer.size = 0;
}

static int commit(worker *w, CallObject *c, int status)
{
    int error = tercio_commit(w->call, status, 0, encoder_parts(&w->answer), w->answer.n_parts);
    if (error >= 0)
        return error;
    take_back(w);
    PyErr_Format(PyExc_MemoryError, "the result of a task is too large to be sent: %s", tercio_error_text(error));
    worker_put_error(w, c, NULL, false, true);
    error = tercio_commit(w->call, TERCIO_EFAILED, 0, encoder_parts(&w->answer), w->answer.n_parts);
    if (error < 0)
        take_back(w);
    return error;
}

/* Takes the reference of an item out of its message: whoever looks there now finds none, so that what the engine drops
 * and what this thread runs are never the same. A thread that doesn't listen is left behind: the engine says stop (A)
 * and then copies the words of the message (B); here the word is taken (C) before looking for the stop (D). If D misses
 * A, then C came before B. If it doesn't, the word goes back, and the worst is a reference that nobody drops. */
static bool take_reference(worker *w, const tercio_chunk *chunk, uint32_t i, PyObject **item, bool *explicit_arguments)
{
    uintptr_t *at = (uintptr_t *)(uintptr_t)chunk->message.data + i;
    uintptr_t word = __atomic_exchange_n(at, 0, __ATOMIC_SEQ_CST);
    if (tercio_stopping(w->call)) {
        __atomic_store_n(at, word, __ATOMIC_SEQ_CST);
        return false;
    }
    *item = reference_at(&word, 0, explicit_arguments);
    if (*item == NULL)
        PyErr_SetString(PyExc_RuntimeError, "the task was given to another worker");
    return true;
}

static int host_run(void *user, tercio_call *call, const tercio_chunk *chunk)
{
    (void)user;
    worker *w = worker_of(call);
    CallObject *c = chunk->context;
    item_cursor cursor = {.at = chunk->message.data};
    cursor.end = cursor.at + chunk->message.size;
    buffers b = buffers_of_chunk(w->st, call, chunk);
    int done = 0;
    w->interrupted = false; /* of this message's items; what came before it is over */
    w->now = c;
    w->answer.serializer = c->serializer;
    for (uint32_t i = 0; i < chunk->n_items && done == 0; i++) {
        item_frame f = {0};
        PyObject *item = NULL;
        bool explicit_arguments;
        if (w->threading) {
            if (i < chunk->skip)
                continue;
            if (!take_reference(w, chunk, i, &item, &explicit_arguments))
                break;
        } else {
            bool whole = cursor_next(&cursor, &f);
            if (i < chunk->skip) {
                PyErr_Clear();
                continue;
            }
            w->busy = true; /* from here on a signal concerns this item */
            if (whole)
                item = decode_value(w->st, c->serializer, f.head, f.size, &b, f.first);
            explicit_arguments = f.explicit_arguments;
        }
        w->index = chunk->index + i;
        w->busy = true;
        int status = TERCIO_EFAILED;
        if (item == NULL)
            worker_put_error(w, c, NULL, false, true);
        else
            status = run_item(w, c, item, explicit_arguments);
        w->busy = false;
        if (w->told) {
            w->told = false;
            if (w->threading)
                PyThreadState_SetAsyncExc(w->ident, NULL);
            worker_let_go_of_imports(w);
        }
        w->item = item;
        w->explicit_arguments = explicit_arguments;
        done = w->interrupted ? 1 : commit(w, c, status);
        w->item = NULL;
        w->interrupted = false;
        Py_XDECREF(item);
    }
    w->now = NULL;
    encoder_reset(&w->answer);
    return done < 0 ? done : 0;
}

/* ---- A call's life in a worker ---------------------------------------------------------------------------------- */

static int host_open_context(void *user, tercio_call *call, const tercio_chunk *context, void **state)
{
    host_env *env = user;
    worker *w = worker_of(call);
    w->busy = true;
    CallObject *c = call_from_context(w->st, env->pool, call, context);
    w->busy = false;
    if (c == NULL)
        return worker_leave_error(w, NULL);
    *state = c;
    return 0;
}

static void host_close_context(void *user, tercio_call *call, void *state)
{
    (void)user;
    (void)call;
    Py_XDECREF((PyObject *)state);
}

static PyObject *invoke_around(worker *w, CallObject *c, PyObject *function)
{
    PyObject *stack[4];
    int n = leading(w, c, stack + 1);
    if (n < 0)
        return NULL;
    w->busy = true;
    PyObject *result = PyObject_Vectorcall(function, stack + 1, (size_t)n | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
    w->busy = false;
    end_stray(w);
    return result;
}

static int host_init(void *user, tercio_call *call, void *context)
{
    (void)user;
    worker *w = worker_of(call);
    CallObject *c = context;
    if (c == NULL || c->worker_init == NULL)
        return 0;
    PyObject *result = invoke_around(w, c, c->worker_init);
    if (result == NULL) {
        w->around = c->worker_init;
        worker_leave_error(w, c);
        w->around = NULL;
        return 1;
    }
    Py_DECREF(result);
    return 0;
}

/* What an exit function returned, in one part: it is read when its run may be gone. The first byte is the serializer. */
static int put_exit_result(worker *w, CallObject *c, PyObject *result)
{
    encoder_reset(&w->answer);
    if (w->threading)
        return encode_reference(&w->answer, result, false);
    w->answer.serializer = c->serializer;
    w->answer.in_band = true;
    w->answer.data[w->answer.size++] = (unsigned char)c->serializer;
    int done = encode_value(&w->answer, result);
    w->answer.in_band = false;
    if (done < 0) {
        PyObject *exc = error_not_picklable(w->st, "worker_exit result", c, 0);
        if (exc != NULL) {
            core_raise(exc);
            Py_DECREF(exc);
        }
    }
    return done;
}

static void host_exit(void *user, tercio_call *call, void *context)
{
    (void)user;
    worker *w = worker_of(call);
    CallObject *c = context;
    if (c == NULL || c->worker_exit == NULL)
        return;
    PyObject *result = invoke_around(w, c, c->worker_exit);
    w->around = c->worker_exit;
    if (result == NULL || put_exit_result(w, c, result) < 0) {
        worker_leave_error(w, c);
    } else if (tercio_leave(call, 0, encoder_parts(&w->answer), w->answer.n_parts) < 0) {
        take_back(w);
        PyErr_SetString(PyExc_MemoryError, "the result of worker_exit is too large to be sent");
        worker_leave_error(w, c);
    }
    w->around = NULL;
    Py_XDECREF(result);
}

/* ---- In the parent ---------------------------------------------------------------------------------------------- */

PyObject *worker_handed_over(const PoolObject *pool, const tercio_result *r)
{
    bool flag;
    if (pool->method != TERCIO_THREADING || r->out.size != sizeof(void *) || r->n_blocks != 0)
        return NULL;
    return reference_at(r->out.data, 0, &flag);
}

static void host_notify(void *user, tercio_run *run)
{
    host_env *env = user;
    sigset_t mine;
    (void)run;
    attachment now = attach(env->interp);
    /* The supervisor holds all signals back, and so would a program that a callback starts. */
    pthread_sigmask(SIG_SETMASK, &env->signals, &mine);
    if (env->pool != NULL && !env->pool->closing)
        async_notify(env->pool);
    pthread_sigmask(SIG_SETMASK, &mine, NULL);
    detach(now);
}

static void host_drop(void *user, tercio_bytes message, uint32_t n_items, uint32_t skip, bool is_answer)
{
    host_env *env = user;
    bool flag;
    if (is_answer ? message.size != sizeof(void *) : message.size < n_items * sizeof(void *))
        return;
    attachment now = attach(env->interp);
    if (is_answer)
        Py_DECREF(reference_at(message.data, 0, &flag));
    else
        for (uint32_t i = skip; i < n_items; i++) /* NULL: a worker has taken it */
            Py_XDECREF(reference_at(message.data, i, &flag));
    detach(now);
}

size_t worker_leave_threads(core_state *st, const PoolObject *pool)
{
    size_t n = 0;
    for (worker *w = st->thread_workers; w != NULL; w = w->next) {
        if (w->pool != pool)
            continue;
        w->pool = NULL; /* another may come to lie at its address */
        n++;
    }
    return n;
}

static void interrupt_thread(worker *w)
{
    if (worker_catch_unraisable(w->st) < 0)
        PyErr_Clear();
    w->told = true;
    PyThreadState_SetAsyncExc(w->ident, w->st->interrupted);
    if (w->waits_in == NULL)
        return;
    if (w->waits_for != NULL) /* it runs no Python until that wait ends */
        tercio_run_interrupt(w->waits_for);
    else
        pool_kick(w->waits_in);
}

void worker_interrupt_threads(core_state *st, PoolObject *pool, CallObject *call, uint64_t index)
{
    for (worker *w = st->thread_workers; w != NULL; w = w->next)
        if (w->pool == pool && w->busy && (index == UINT64_MAX || (w->now == call && w->index == index)))
            interrupt_thread(w);
}

void worker_interrupt_unwanted(core_state *st, PoolObject *pool)
{
    for (worker *w = st->thread_workers; w != NULL; w = w->next)
        if (w->pool == pool && w->busy && tercio_is_stopping(w->call))
            interrupt_thread(w);
}

/* An exception put into this thread is raised when it runs Python again; in a wait that would be too late. */
static int raise_pending(worker *w)
{
    PyObject *what = PyThreadState_Get()->async_exc;
    if (what == NULL)
        return 0;
    Py_INCREF(what);
    PyThreadState_SetAsyncExc(w->ident, NULL);
    PyErr_SetNone(what);
    Py_DECREF(what);
    return -1;
}

static worker *worker_here(core_state *st)
{
    if (st->thread_workers == NULL)
        return NULL;
    unsigned long me = PyThread_get_thread_ident();
    worker *w = st->thread_workers;
    while (w != NULL && w->ident != me)
        w = w->next;
    return w;
}

bool worker_interrupt_again(core_state *st)
{
    worker *w = worker_here(st);
    if (w != NULL && w->busy && w->told)
        PyThreadState_SetAsyncExc(w->ident, st->interrupted);
    return w != NULL;
}

int worker_waits(core_state *st, PoolObject *pool, tercio_run *run)
{
    worker *w = worker_here(st);
    if (w == NULL)
        return 0;
    if (raise_pending(w) < 0)
        return -1;
    w->waits_in = pool;
    w->waits_for = run;
    return 0;
}

bool worker_is_here(core_state *st)
{
    return worker_here(st) != NULL;
}

bool worker_is_of(core_state *st, const PoolObject *pool)
{
    const worker *w = worker_here(st);
    return w != NULL && w->pool == pool;
}

int worker_waited(core_state *st)
{
    worker *w = worker_here(st);
    if (w == NULL)
        return 0;
    w->waits_in = NULL;
    return raise_pending(w);
}

/* The arguments of an item that took long, for people. */
static size_t host_describe(void *user, tercio_call *call, char *text, size_t room)
{
    (void)user;
    worker *w = worker_of(call);
    PyObject *args = NULL, *kwargs = NULL, *made = NULL, *function;
    size_t size = 0;
    if (w == NULL || w->now == NULL || w->item == NULL || PyErr_Occurred())
        return 0;
    function = core_function(w->st, FN_ARGUMENTS_TEXT);
    /* An iterator has been used up by the call; asking it again could even block. */
    if (function != NULL && !PyIter_Check(w->item) &&
        call_unpack(w->now, w->item, w->explicit_arguments, &args, &kwargs) == 0)
        made = PyObject_CallFunctionObjArgs(function, args, kwargs == NULL ? Py_None : kwargs, NULL);
    Py_ssize_t length = 0;
    const char *utf8 = made == NULL ? NULL : PyUnicode_AsUTF8AndSize(made, &length);
    if (utf8 != NULL) {
        size = (size_t)length < room ? (size_t)length : room;
        memcpy(text, utf8, size);
    }
    PyErr_Clear();
    Py_XDECREF(made);
    Py_XDECREF(args);
    Py_XDECREF(kwargs);
    return size;
}

const tercio_host core_host = {
    .size = sizeof core_host,
    .before_fork = worker_before_fork,
    .after_fork = worker_after_fork,
    .notify = host_notify,
    .drop = host_drop,
    .enter = worker_enter,
    .open_context = host_open_context,
    .close_context = host_close_context,
    .init = host_init,
    .run = host_run,
    .exit = host_exit,
    .leave = worker_leave,
    .live = worker_live,
    .lost = worker_lost,
    .pause = host_pause,
    .resume = host_resume,
    .signals = worker_signals,
    .describe = host_describe,
};

PyObject *worker_main(PyObject *module, PyObject *argument)
{
    const char *text = PyUnicode_AsUTF8(argument);
    if (text == NULL)
        return NULL;
    host_env env = {.st = PyModule_GetState(module), .interp = PyInterpreterState_Get()};
    int error = tercio_worker_main(&core_host, &env, text);
    return error_raise(env.st, NULL, error);
}
