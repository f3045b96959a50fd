/* SPDX-License-Identifier: MIT
 *
 * Results of applied tasks. A result finds its AsyncResult by cookie: a slot's number and generation in the pool's table,
 * which owns the AsyncResult until then.
 *
 * The run's pumper takes results out: one thread at a time, so that callbacks run one after another in the order in
 * which tasks finished. It is a thread that wants a result (get, wait, ready, wait_idle) or, while there is none, the
 * supervisor's (async_notify). A thread that finds a pumper at work waits on a pipe of its own until the
 * pumper has its result or leaves. A callback may ask for results itself: the pumper may enter again.
 *
 * An AsyncResult is ready once its callback has returned, exactly once, in apply_complete.
 */
#include "apply.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

/* ---- Slots ------------------------------------------------------------------------------------------------------ */

int apply_slot_take(PoolObject *pool, AsyncObject *a, uint64_t *cookie)
{
    if (pool->free_slot == UINT32_MAX) {
        uint32_t n = pool->n_slots == 0 ? 16 : pool->n_slots * 2;
        async_slot *slots = n <= pool->n_slots ? NULL : PyMem_Realloc(pool->slots, n * sizeof *slots);
        if (slots == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        for (uint32_t i = pool->n_slots; i < n; i++)
            slots[i] = (async_slot){.next_free = i + 1 < n ? i + 1 : UINT32_MAX};
        pool->free_slot = pool->n_slots;
        pool->slots = slots;
        pool->n_slots = n;
    }
    uint32_t i = pool->free_slot;
    async_slot *slot = &pool->slots[i];
    pool->free_slot = slot->next_free;
    Py_INCREF(a);
    slot->result = a;
    pool->n_pending++;
    *cookie = (uint64_t)slot->generation << 32 | i;
    return 0;
}

AsyncObject *apply_slot_give(PoolObject *pool, uint64_t cookie)
{
    uint32_t i = (uint32_t)cookie;
    if (i >= pool->n_slots || pool->slots[i].result == NULL || pool->slots[i].generation != (uint32_t)(cookie >> 32))
        return NULL;
    async_slot *slot = &pool->slots[i];
    AsyncObject *a = slot->result;
    slot->result = NULL;
    slot->generation++;
    slot->next_free = pool->free_slot;
    pool->free_slot = i;
    pool->n_pending--;
    return a;
}

/* ---- Completing ------------------------------------------------------------------------------------------------- */

static void wake(waiter *w)
{
    ssize_t n;
    if (w->woken)
        return;
    w->woken = true;
    do
        n = write(w->fd, "", 1);
    while (n < 0 && errno == EINTR);
}

/* Takes `value` over: the result, or (failed) the exception. NULL: memory is out, which apply_outcome() knows by None. */
void apply_answer(AsyncObject *a, PyObject *value, bool failed)
{
    if (value == NULL) {
        failed = true;
        Py_INCREF(Py_None);
        value = Py_None;
    }
    Py_XSETREF(a->value, value);
    a->failed = failed && !(a->returns_errors && PyObject_TypeCheck(value, (PyTypeObject *)PyExc_Exception));
    Py_CLEAR(a->argument);
}

/* A failure of the pool is not the task's, whatever was asked for. */
static void answer_failed(AsyncObject *a, PyObject *exc)
{
    a->returns_errors = false;
    Py_XINCREF(exc);
    apply_answer(a, exc, true);
}

/* The one place where an answered AsyncResult becomes ready; runs the callback first. */
void apply_complete(AsyncObject *a)
{
    if (a->ready)
        return;
    PyObject *callback = a->failed ? a->error_callback : a->callback;
    if (callback != NULL) {
        Py_INCREF(callback);
        PyObject *returned = PyObject_CallOneArg(callback, a->value);
        if (returned == NULL)
            error_unraisable(callback);
        Py_XDECREF(returned);
        Py_DECREF(callback);
    }
    a->ready = true;
    Py_CLEAR(a->callback);
    Py_CLEAR(a->error_callback);
    if (a->at != NULL) {
        a->at->pending--;
        for (waiter *w = a->at->waiters; w != NULL; w = w->next)
            if (w->result == a || (w->result == NULL && a->at->pending == 0))
                wake(w);
        a->at = NULL;
    }
    PyObject *futures = a->futures;
    a->futures = NULL;
    if (futures != NULL) {
        for (Py_ssize_t i = 0; i < PyList_GET_SIZE(futures); i++)
            async_tell_future(a, PyList_GET_ITEM(futures, i));
        Py_DECREF(futures);
    }
    Py_CLEAR(a->pool);
}

static PyObject *read_answer(PoolObject *pool, apply_run *at, AsyncObject *a, const tercio_result *r, bool *failed)
{
    core_state *st = pool->env.st;
    *failed = true;
    if (r->status != 0)
        return error_of_result(pool, at->run, at->call, r, a->argument, true, at->timeout);
    PyObject *v = worker_handed_over(pool, r);
    if (v == NULL) {
        answer_bytes bytes;
        if (answer_open(&bytes, st, at->run, r) < 0)
            return core_take_exception();
        pool_mean_main(pool);
        v = decode_value(st, at->call->serializer, bytes.head, bytes.size, &bytes.buffers, 0);
        answer_close(&bytes);
    }
    if (v == NULL)
        return core_take_exception();
    *failed = false;
    return v;
}

/* Takes results out of the engine, into at->done. Returns 0; -1 with an exception when the run can't go on. */
static int gather(PoolObject *pool, apply_run *at)
{
    tercio_result r;
    r.size = sizeof r;
    while (at->run != NULL) {
        int found = tercio_next(at->run, 0, &r);
        if (found == TERCIO_EAGAIN || found == TERCIO_EINTERRUPTED || found == 0)
            return 0;
        if (found < 0) {
            error_raise(pool->env.st, pool, found);
            return -1;
        }
        if (r.kind != TERCIO_KIND_RESULT) {
            int noted = r.kind == TERCIO_KIND_EXIT ? pool_note_exit(pool, at->run, &r) : 0;
            tercio_release(at->run, &r);
            if (noted < 0)
                return -1;
            continue;
        }
        AsyncObject *a = apply_slot_give(pool, r.cookie);
        if (a == NULL) {
            tercio_release(at->run, &r);
            continue;
        }
        bool failed;
        tercio_run *run = at->run;
        at->reading++; /* it may run anything, and end the pool; its bytes are the run's */
        PyObject *value = read_answer(pool, at, a, &r, &failed);
        if (r.status == TERCIO_ETIMEDOUT && pool->method == TERCIO_THREADING)
            worker_interrupt_threads(pool->env.st, pool, at->call, r.index);
        tercio_release(run, &r);
        if (--at->reading == 0 && at->late != NULL) {
            tercio_run_close(at->late);
            at->late = NULL;
        }
        apply_answer(a, value, failed);
        *at->done_end = a;
        at->done_end = &a->next_done;
    }
    return 0;
}

/* The pumper's work: completes all that is answered. Returns how many; -1 with an exception as gather. */
static int deliver(PoolObject *pool, apply_run *at)
{
    int n = 0, error = gather(pool, at);
    while (at->done != NULL) {
        PyObject *raised = error < 0 ? core_take_exception() : NULL;
        AsyncObject *a = at->done;
        at->done = a->next_done;
        if (at->done == NULL)
            at->done_end = &at->done;
        a->next_done = NULL;
        apply_complete(a);
        Py_DECREF(a);
        n++;
        if (raised != NULL) {
            core_raise(raised);
            Py_DECREF(raised);
        } else if (at->done == NULL) {
            error = gather(pool, at);
        }
    }
    return error < 0 ? -1 : n;
}

/* Every pending task of the run fails with what is raised now. */
static void fail_pending(PoolObject *pool, apply_run *at)
{
    PyObject *exc = core_take_exception();
    for (uint32_t i = 0; i < pool->n_slots; i++) {
        AsyncObject *a = pool->slots[i].result;
        if (a == NULL || (at != NULL && a->at != at))
            continue;
        a = apply_slot_give(pool, (uint64_t)pool->slots[i].generation << 32 | i);
        answer_failed(a, exc);
        apply_complete(a);
        Py_DECREF(a);
    }
    Py_XDECREF(exc);
}

/* ---- Waiting ---------------------------------------------------------------------------------------------------- */

static bool satisfied(const apply_run *at, const AsyncObject *a)
{
    return a != NULL ? a->ready : at->pending == 0;
}

/* Waits until the pumper wakes us. Returns 0; TERCIO_EAGAIN at the time's end; WAIT_RAISED. */
static int wait_for_pumper(apply_run *at, AsyncObject *a, double timeout)
{
    int ends[2], result = 0;
    sigset_t all, before;
    if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return WAIT_RAISED;
    }
    waiter w = {.next = at->waiters, .result = a, .fd = ends[1]};
    at->waiters = &w;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    if (PyErr_CheckSignals() < 0) {
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        result = WAIT_RAISED;
    } else {
        struct timespec time;
        if (timeout >= 0) {
            double whole = floor(timeout > 1e8 ? 1e8 : timeout);
            time.tv_sec = (time_t)whole;
            time.tv_nsec = (long)((timeout > 1e8 ? 0 : timeout - whole) * 1e9);
        }
        struct pollfd fd = {.fd = ends[0], .events = POLLIN};
        bool is_worker = worker_is_here(core_of_type(Py_TYPE((PyObject *)at->call)));
        int n;
        Py_BEGIN_ALLOW_THREADS
        n = ppoll(&fd, 1, timeout >= 0 ? &time : NULL, is_worker ? &all : &before);
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        Py_END_ALLOW_THREADS
        if (n == 0)
            result = TERCIO_EAGAIN;
        else if (n < 0 && PyErr_CheckSignals() < 0)
            result = WAIT_RAISED;
    }
    waiter **from = &at->waiters;
    while (*from != &w)
        from = &(*from)->next;
    *from = w.next;
    close(ends[0]);
    close(ends[1]);
    attach_stay_at_end(core_of_type(Py_TYPE((PyObject *)at->call)));
    return result;
}

static void leave_pump(apply_run *at)
{
    at->pumper = 0;
    for (waiter *w = at->waiters; w != NULL; w = w->next) /* somebody has to go on */
        if (!w->woken) {
            wake(w);
            break;
        }
}

/* Works and waits until `a` is ready (NULL: until nothing is pending). `fresh`: it was sent just now, a look would find
 * nothing, and ask the supervisor to look after it meanwhile. Returns 0; TERCIO_EAGAIN; WAIT_RAISED. */
int apply_wait(PoolObject *pool, apply_run *at, AsyncObject *a, double timeout, bool fresh)
{
    unsigned long me = PyThread_get_thread_ident();
    double deadline = timeout < 0 ? -1 : core_now() + timeout;
    int result = 0;
    if (!satisfied(at, a) && pool_is_foreign(pool)) {
        error_raise(pool->env.st, NULL, TERCIO_EFORKED);
        return WAIT_RAISED;
    }
    Py_INCREF(pool); /* `at` is the pool's */
    while (!satisfied(at, a)) {
        double left = -1;
        if (at->run == NULL) { /* closed under us: those who are pending have been failed, or are about to be */
            error_raise(pool->env.st, NULL, TERCIO_ECLOSED);
            result = WAIT_RAISED;
            break;
        }
        if (at->pumper != 0 && at->pumper != me) {
            if (deadline >= 0 && (left = deadline - core_now()) < 0)
                left = 0;
            result = wait_for_pumper(at, a, left);
            if (result != 0)
                break;
            continue;
        }
        unsigned long outer = at->pumper;
        at->pumper = me;
        int n = fresh ? 0 : deliver(pool, at);
        fresh = false;
        if (n < 0)
            fail_pending(pool, at);
        else if (n == 0 && !satisfied(at, a) && at->run != NULL) {
            if (deadline >= 0 && (left = deadline - core_now()) < 0)
                left = 0;
            at->in_wait = true;
            result = pool_wait(pool, at->run, left, false);
            at->in_wait = false;
            if (result != WAIT_RAISED && result != TERCIO_EAGAIN && result != TERCIO_EINTERRUPTED && result != 0) {
                if (at->run != NULL && result != TERCIO_ECLOSED) {
                    error_raise(pool->env.st, pool, result);
                    fail_pending(pool, at);
                } else if (at->run != NULL) { /* terminate has the floor; it fails what is left */
                    Py_BEGIN_ALLOW_THREADS
                    Py_END_ALLOW_THREADS
                }
                result = 0;
            }
            if (result == TERCIO_EINTERRUPTED)
                result = 0;
        }
        at->pumper = outer;
        if (outer == 0)
            leave_pump(at);
        if (result == TERCIO_EAGAIN) {
            if (satisfied(at, a))
                result = 0;
            else if (deadline >= 0 && core_now() < deadline) {
                result = 0;
                continue;
            }
        }
        if (result != 0) {
            if (at->run != NULL) /* the supervisor may have left to us what came while we were on our way out */
                tercio_run_unattended(at->run);
            break;
        }
    }
    Py_DECREF(pool);
    return result;
}

int async_wait_idle(PoolObject *pool)
{
    unsigned long me = PyThread_get_thread_ident();
    for (apply_run *at = pool->applies; at != NULL; at = at->next)
        if (at->pumper == me) { /* the task whose callback this is stays pending until it returns */
            PyErr_SetString(PyExc_RuntimeError, "a callback can't wait for the end of the pool that called it");
            return -1;
        }
    for (apply_run *at = pool->applies; at != NULL; at = at->next)
        if (apply_wait(pool, at, NULL, -1, false) < 0)
            return -1;
    return 0;
}

/* In the supervisor's thread: results are there that nobody waits for. */
void async_notify(PoolObject *pool)
{
    Py_INCREF(pool);
    pool->supervisor = PyThread_get_thread_ident();
    for (apply_run *at = pool->applies; at != NULL && !pool->closing; at = at->next) {
        if (at->pumper != 0) {
            /* In the engine it finds them itself. In a callback it may stay for long: it completes them later. */
            if (!at->in_wait) {
                if (gather(pool, at) < 0)
                    fail_pending(pool, at);
                /* Reading an answer runs Python code: the pumper may have looked meanwhile, and gone to sleep. */
                if (at->done != NULL && at->in_wait)
                    tercio_run_interrupt(at->run);
            }
            continue;
        }
        at->pumper = pool->supervisor;
        if (deliver(pool, at) < 0)
            fail_pending(pool, at);
        leave_pump(at);
    }
    pool->supervisor = 0;
    Py_DECREF(pool); /* the last one, perhaps: see pool_finalize */
}

/* ---- The pool goes ---------------------------------------------------------------------------------------------- */

void async_pool_closes(PoolObject *pool, bool drain)
{
    for (apply_run *at = pool->applies; at != NULL; at = at->next) {
        if (drain && at->run != NULL && at->reading == 0 &&
            (at->pumper != 0 ? gather(pool, at) : deliver(pool, at)) < 0)
            PyErr_Clear();
        tercio_run *run = at->run;
        at->run = NULL;
        if (run == NULL)
            continue;
        if (!drain) { /* whoever reads there is perhaps a thread that is not here */
            if (at->reading == 0)
                tercio_run_close(run);
        } else if (at->reading > 0) {
            tercio_run_detach(run);
            at->late = run;
        } else {
            tercio_run_close(run);
        }
    }
    if (!drain) /* in a forked child: those who waited are not here */
        return;
    PyErr_SetString(PyExc_RuntimeError, "Pool was terminated"); /* without staying here at the interpreter's end */
    fail_pending(pool, NULL);
    for (apply_run *at = pool->applies; at != NULL; at = at->next)
        for (waiter *w = at->waiters; w != NULL; w = w->next)
            wake(w);
}

void async_free_runs(PoolObject *pool)
{
    apply_run *next;
    for (apply_run *at = pool->applies; at != NULL; at = next) {
        next = at->next;
        while (at->done != NULL) {
            AsyncObject *a = at->done;
            at->done = a->next_done;
            Py_DECREF(a);
        }
        Py_CLEAR(at->call);
        PyMem_Free(at);
    }
    pool->applies = NULL;
    for (uint32_t i = 0; i < pool->n_slots; i++) /* of a pool in a forked child: nobody will complete them */
        Py_CLEAR(pool->slots[i].result);
}

CallObject *async_find_call(PoolObject *pool, uint64_t id)
{
    for (apply_run *at = pool->applies; at != NULL; at = at->next)
        if (at->call->id == id)
            return at->call;
    return NULL;
}

int async_traverse_pool(PoolObject *pool, visitproc visit, void *arg)
{
    for (apply_run *at = pool->applies; at != NULL; at = at->next)
        Py_VISIT(at->call);
    for (uint32_t i = 0; i < pool->n_slots; i++)
        Py_VISIT(pool->slots[i].result);
    return 0;
}

/* ---- A look -------------------------------------------------------------------------------------------------- */

void apply_look(AsyncObject *a)
{
    PoolObject *pool = a->pool;
    apply_run *at = a->at;
    if (a->ready || at == NULL || at->run == NULL || at->pumper != 0 || pool_is_foreign(pool))
        return;
    Py_INCREF(pool);
    at->pumper = PyThread_get_thread_ident();
    if (deliver(pool, at) < 0)
        fail_pending(pool, at);
    leave_pump(at);
    Py_DECREF(pool);
}

PyObject *apply_outcome(AsyncObject *a)
{
    if (a->failed && a->value == Py_None)
        return PyErr_NoMemory();
    if (a->failed) {
        attach_stay_at_end(core_of_type(Py_TYPE((PyObject *)a)));
        core_raise(a->value);
        return NULL;
    }
    Py_INCREF(a->value);
    return a->value;
}
