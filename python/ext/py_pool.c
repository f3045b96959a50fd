/* SPDX-License-Identifier: MIT
 *
 * Pool: an engine's pool with what Python adds to it. Threads in it:
 *
 *   - The engine's pool goes away in pool_close alone, and only when no thread is inside it without the GIL
 *     (`inside`, counted under `gate`). `closing` is set first, under the GIL; nobody goes in after that.
 *   - The supervisor's thread comes in through host->notify. It can't wait for itself: a close that it asks for (a
 *     callback calls terminate) is put off until another thread comes by.
 */
#include "codec.h"

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

/* ---- Waiting ---------------------------------------------------------------------------------------------------- */

static void go_in(PoolObject *pool)
{
    pthread_mutex_lock(&pool->gate);
    pool->inside++;
    pthread_mutex_unlock(&pool->gate);
}

static void come_out(PoolObject *pool)
{
    pthread_mutex_lock(&pool->gate);
    /* One interrupt wakes one waiter; each that goes wakes the next. */
    if (--pool->inside > 0 && pool->closing)
        tercio_interrupt(pool->engine);
    pthread_cond_broadcast(&pool->gate_open);
    pthread_mutex_unlock(&pool->gate);
}

/* A signal between the look and the sleep would be slept through, so signals are held back until the engine sleeps, with
 * `asleep` as its mask. Outside of the main thread this changes nothing. */
typedef struct {
    sigset_t before, asleep;
} held_signals;

static void release_signals(const held_signals *held)
{
    pthread_sigmask(SIG_SETMASK, &held->before, NULL);
}

/* Returns: 0, and release_signals() is due; TERCIO_ECLOSED; WAIT_RAISED. */
static int hold_signals(PoolObject *pool, tercio_run *run, held_signals *held)
{
    sigset_t all;
    int result = 0;
    if (PyErr_CheckSignals() < 0)
        return WAIT_RAISED;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &held->before);
    if (PyErr_CheckSignals() < 0)
        result = WAIT_RAISED;
    else if (pool->engine == NULL || pool->closing) /* a handler may have ended it */
        result = TERCIO_ECLOSED;
    else if (worker_waits(pool->env.st, pool, run) < 0)
        result = WAIT_RAISED;
    if (result != 0)
        release_signals(held);
    else
        held->asleep = worker_is_here(pool->env.st) ? all : held->before;
    return result;
}

/* Behind a wait: lets handlers run. Returns: `result`, or WAIT_RAISED. */
static int look_after_signals(PoolObject *pool, int result)
{
    if (worker_waited(pool->env.st) < 0 || (result == TERCIO_EINTERRUPTED && PyErr_CheckSignals() < 0))
        return WAIT_RAISED;
    return result;
}

/* For a run; or, where that is NULL, for room in the pool. */
static int wait_in_engine(PoolObject *pool, tercio_run *run, double timeout, bool or_room)
{
    held_signals held;
    int result = hold_signals(pool, run, &held);
    if (result != 0)
        return result;
    go_in(pool);
    PyThreadState *ts = attach_let_go();
    result = run != NULL ? tercio_wait(run, timeout, or_room, &held.asleep)
                         : tercio_wait_room(pool->engine, timeout, &held.asleep);
    release_signals(&held);
    attach_again(ts);
    come_out(pool);
    if (pool->closing)
        attach_stay_at_end(pool->env.st);
    return look_after_signals(pool, result);
}

int pool_wait(PoolObject *pool, tercio_run *run, double timeout, bool or_room)
{
    return wait_in_engine(pool, run, timeout, or_room);
}

int pool_wait_room(PoolObject *pool)
{
    return wait_in_engine(pool, NULL, -1, true);
}

void pool_kick(PoolObject *pool)
{
    if (pool->engine != NULL)
        tercio_interrupt(pool->engine);
}

bool pool_is_foreign(const PoolObject *pool)
{
    return pool->generation != tercio_fork_generation();
}

bool pool_unusable(PoolObject *pool)
{
    if (pool_is_foreign(pool)) {
        error_raise(pool->env.st, NULL, TERCIO_EFORKED);
        return true;
    }
    if (pool->engine == NULL || pool->closing || pool->close_later) {
        error_raise(pool->env.st, NULL, TERCIO_ECLOSED);
        return true;
    }
    return false;
}

int pool_note_exit(PoolObject *pool, tercio_run *run, const tercio_result *r)
{
    PyObject *value;
    if (r->status != 0) {
        value = error_of_result(pool, run, NULL, r, NULL, false, 0);
        if (value == NULL)
            return -1;
        if (pool->exit_error == NULL)
            pool->exit_error = value;
        else
            Py_DECREF(value);
        return 0;
    }
    value = worker_handed_over(pool, r);
    if (value == NULL) {
        answer_bytes a;
        if (answer_open(&a, pool->env.st, run, r) == 0) {
            const unsigned char *data = a.head;
            pool_mean_main(pool);
            if (a.size > 1 && data[0] < SERIALIZER_COUNT)
                value = decode_value(pool->env.st, data[0], data + 1, a.size - 1, NULL, 0);
            answer_close(&a);
            if (value == NULL && !PyErr_Occurred())
                return 0;
        }
        if (value == NULL) {
            PyObject *exc = core_take_exception();
            if (pool->exit_error == NULL)
                pool->exit_error = exc;
            else
                Py_XDECREF(exc);
            return 0;
        }
    }
    int done = PyList_Append(pool->exit_results, value);
    Py_DECREF(value);
    return done;
}

/* ---- What the workers did ---------------------------------------------------------------------------------------- */

/* What took the worker longest: a list of (seconds, index, text). */
static PyObject *longest_of(PoolObject *self, unsigned worker)
{
    tercio_longest longest[TERCIO_LONGEST];
    longest[0].size = sizeof longest[0];
    int n = tercio_get_longest(self->engine, worker, longest, TERCIO_LONGEST);
    PyObject *list = n < 0 ? error_raise(self->env.st, self, n) : PyList_New(0);
    for (int i = 0; list != NULL && i < n; i++) {
        /* The text may be cut in the middle of a character. */
        PyObject *text = PyUnicode_DecodeUTF8(longest[i].text, (Py_ssize_t)strlen(longest[i].text), "ignore");
        PyObject *entry = text == NULL
                              ? NULL
                              : Py_BuildValue("(dKN)", longest[i].seconds, (unsigned long long)longest[i].index, text);
        if (entry == NULL || PyList_Append(list, entry) < 0)
            Py_CLEAR(list);
        Py_XDECREF(entry);
    }
    return list;
}

static PyObject *stats_now(PoolObject *self)
{
    static const char *const states[] = {"none", "start", "init", "wait", "work", "exit", "dead"};
    tercio_stats *stats = PyMem_Calloc(self->n_workers + 1u, sizeof *stats);
    if (stats == NULL)
        return PyErr_NoMemory();
    stats[0].size = sizeof *stats;
    int n = tercio_get_stats(self->engine, stats, self->n_workers);
    PyObject *list = n < 0 ? error_raise(self->env.st, self, n) : PyList_New(0);
    for (int i = 0; list != NULL && i < n && i < (int)self->n_workers; i++) {
        const tercio_stats *s = &stats[i];
        const char *state = s->state >= 0 && s->state <= TERCIO_STATE_DEAD ? states[s->state] : "none";
        PyObject *died = s->died ? Py_BuildValue("(ii)", s->died_signal, s->died_code) : Py_BuildValue("");
        PyObject *dict =
            Py_BuildValue("{s:i,s:i,s:s,s:K,s:K,s:d,s:d,s:d,s:d,s:d,s:N,s:K,s:K}", "worker", i, "pid", s->pid, "state",
                          state, "tasks", (unsigned long long)s->tasks, "restarts", (unsigned long long)s->restarts,
                          "start", s->start, "init", s->init, "wait", s->wait, "work", s->work, "exit", s->exit, "died",
                          died, "killed", (unsigned long long)s->killed, "cut_short", (unsigned long long)s->cut_short);
        PyObject *longest = dict != NULL && self->observe ? longest_of(self, (unsigned)i) : NULL;
        if (dict == NULL ||
            (self->observe && (longest == NULL || PyDict_SetItemString(dict, "longest", longest) < 0)) ||
            PyList_Append(list, dict) < 0)
            Py_CLEAR(list);
        Py_XDECREF(longest);
        Py_XDECREF(dict);
    }
    PyMem_Free(stats);
    return list;
}

/* What the workers did, for those who ask when the counters are gone. */
static void note_stats(PoolObject *self)
{
    PyObject *stats = stats_now(self);
    if (stats == NULL)
        PyErr_Clear();
    Py_XSETREF(self->last_stats, stats);
}

/* ---- Closing ---------------------------------------------------------------------------------------------------- */

void pool_close(PoolObject *self)
{
    if (self->engine == NULL)
        return;
    if (self->supervisor == PyThread_get_thread_ident() && !pool_is_foreign(self)) {
        self->close_later = true;
        return;
    }
    if (self->closing && !pool_is_foreign(self))
        return; /* another thread is at it, or waits for us */
    self->closing = true;
    PyObject *raised = core_take_exception();
    tercio_pool *engine = self->engine;
    if (pool_is_foreign(self)) { /* nothing of it is this process's own but some memory, and copies of descriptors */
        self->engine = NULL;
        async_pool_closes(self, false);
        tercio_close(engine);
    } else {
        PyThreadState *ts = attach_let_go();
        pthread_mutex_lock(&self->gate);
        if (self->inside > 0)
            tercio_interrupt(engine);
        while (self->inside > 0)
            pthread_cond_wait(&self->gate_open, &self->gate);
        pthread_mutex_unlock(&self->gate);
        attach_again(ts);
        RunObject *next;
        for (RunObject *run = self->runs; run != NULL; run = next) {
            next = run_next_of_pool(run);
            run_pool_closes(run);
        }
        if (self->last_stats == NULL)
            note_stats(self);
        async_pool_closes(self, true);
        /* Not before the engine knows that nobody wants their answers: that of an interrupted task is none. */
        if (self->method == TERCIO_THREADING)
            worker_interrupt_threads(self->env.st, self, NULL, UINT64_MAX);
        self->engine = NULL;
        ts = attach_let_go();
        tercio_close(engine);
        attach_again(ts);
        self->n_left = worker_leave_threads(self->env.st, self);
    }
    if (raised != NULL) {
        core_raise(raised);
        Py_DECREF(raised);
    }
}

typedef struct {
    PoolObject *pool;
    const held_signals *held;
} finishing;

static void exit_note(void *user, const tercio_result *r)
{
    const finishing *f = user;
    sigset_t all;
    release_signals(f->held); /* to load a result may run anything, and what that starts would inherit the mask */
    attachment now = attach(f->pool->env.interp);
    if (pool_note_exit(f->pool, NULL, r) < 0)
        error_unraisable(NULL);
    detach(now);
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, NULL);
}

static PyObject *pool_finish(PyObject *o, PyObject *Py_UNUSED(none))
{
    PoolObject *self = (PoolObject *)o;
    if (!self->finished && (pool_unusable(self) || async_wait_idle(self) < 0))
        return NULL;
    while (!self->finished) {
        held_signals held;
        if (pool_unusable(self))
            return NULL;
        int error = hold_signals(self, NULL, &held);
        if (error == TERCIO_ECLOSED)
            continue;
        if (error < 0)
            return NULL;
        go_in(self);
        PyThreadState *ts = attach_let_go();
        error = tercio_finish_masked(self->engine, 0, &held.asleep, exit_note, &(finishing){self, &held});
        release_signals(&held);
        attach_again(ts);
        come_out(self);
        if (self->closing)
            attach_stay_at_end(self->env.st);
        error = look_after_signals(self, error);
        if (error == WAIT_RAISED)
            return NULL;
        if (error == TERCIO_EINTERRUPTED)
            continue;
        note_stats(self); /* the exit functions are in them */
        if (error < 0) {
            error_raise(self->env.st, self, error);
            pool_close(self);
            return NULL;
        }
        self->finished = true;
    }
    pool_close(self);
    if (self->exit_error != NULL) {
        PyObject *exc = self->exit_error;
        self->exit_error = NULL;
        core_raise(exc);
        Py_DECREF(exc);
        return NULL;
    }
    return PyList_GetSlice(self->exit_results, 0, PyList_GET_SIZE(self->exit_results));
}

static PyObject *pool_terminate(PyObject *o, PyObject *Py_UNUSED(none))
{
    PoolObject *self = (PoolObject *)o;
    if (!pool_is_foreign(self))
        pool_close(self);
    Py_RETURN_NONE;
}

static int pool_traverse(PyObject *o, visitproc visit, void *arg)
{
    PoolObject *self = (PoolObject *)o;
    Py_VISIT(Py_TYPE(o));
    Py_VISIT(self->first_call);
    Py_VISIT(self->shared);
    Py_VISIT(self->server);
    Py_VISIT(self->cpu_ids);
    Py_VISIT(self->exit_results);
    Py_VISIT(self->last_stats);
    Py_VISIT(self->exit_error);
    Py_VISIT(self->main);
    return async_traverse_pool(self, visit, arg);
}

static int pool_clear(PyObject *o)
{
    PoolObject *self = (PoolObject *)o;
    pool_close(self);
    Py_CLEAR(self->first_call);
    Py_CLEAR(self->shared);
    Py_CLEAR(self->server);
    Py_CLEAR(self->cpu_ids);
    Py_CLEAR(self->exit_results);
    Py_CLEAR(self->last_stats);
    Py_CLEAR(self->exit_error);
    Py_CLEAR(self->main);
    return 0;
}

/* Here and not in a __del__ of Python's, where a KeyboardInterrupt would get lost: it is raised wherever Python code
 * runs next, and what is raised in a __del__ nobody hears of. */
static void warn_unclosed(const PoolObject *self)
{
    if (self->engine == NULL || self->closing || self->close_later || pool_is_foreign(self) || PyErr_Occurred())
        return; /* what is raised was perhaps before anybody could have closed it */
    if (PyErr_WarnFormat(PyExc_ResourceWarning, 1,
                         "unclosed WorkerPool with %u workers (start_method '%s'): use `with`, stop_and_join() or "
                         "terminate()",
                         self->n_workers, tercio_method_name(self->method)) < 0)
        error_unraisable(NULL);
}

static void close_elsewhere(void *data)
{
    PoolObject *self = data;
    attachment now = attach(self->env.interp);
    pool_close(self);
    Py_DECREF((PyObject *)self);
    detach(now);
}

/* Nobody has it any more. Where this thread can't wait for the pool's end, since it is the supervisor's or a worker of the
 * pool, another one closes it, and has the one reference until then. */
static void pool_finalize(PyObject *o)
{
    PoolObject *self = (PoolObject *)o;
    if (self->engine == NULL || self->closing || pool_is_foreign(self))
        return;
    warn_unclosed(self);
    if (self->engine == NULL || self->closing)
        return; /* the warning has run Python code */
    if (tercio_may_close(self->engine)) {
        pool_close(self);
        return;
    }
    self->close_later = true;
    Py_INCREF(o);
    if (PyThread_start_new_thread(close_elsewhere, self) != PYTHREAD_INVALID_THREAD_ID)
        return;
    PyObject *raised = core_take_exception();
    PyErr_SetString(PyExc_RuntimeError, "can't start a thread that ends the workers of a pool; they live on");
    error_unraisable(NULL);
    if (raised != NULL)
        core_raise(raised);
    Py_XDECREF(raised);
}

static void pool_dealloc(PyObject *o)
{
    PoolObject *self = (PoolObject *)o;
    PyTypeObject *type = Py_TYPE(o);
    if (PyObject_CallFinalizerFromDealloc(o) < 0)
        return;
    PyObject_GC_UnTrack(o);
    pool_clear(o);
    async_free_runs(self);
    if (self->spare != NULL) {
        encoder_fini(self->spare);
        PyMem_Free(self->spare);
    }
    PyMem_Free(self->slots);
    PyMem_Free(self->argv);
    Py_CLEAR(self->argv_bytes);
    Py_CLEAR(self->pipe_bytes);
    if (!pool_is_foreign(self)) { /* elsewhere somebody may hold them for ever */
        pthread_cond_destroy(&self->gate_open);
        pthread_mutex_destroy(&self->gate);
    }
    type->tp_free(o);
    Py_DECREF(type);
}

/* ---- Looking ---------------------------------------------------------------------------------------------------- */

static PyObject *pool_alive(PyObject *o, PyObject *Py_UNUSED(none))
{
    PoolObject *self = (PoolObject *)o;
    tercio_result r = {.size = sizeof r};
    return PyBool_FromLong(self->engine != NULL && !self->closing && !self->close_later && !pool_is_foreign(self) &&
                           tercio_failure(self->engine, &r) == 0);
}

static PyObject *pool_set_timeouts(PyObject *o, PyObject *args)
{
    PoolObject *self = (PoolObject *)o;
    double init_timeout, exit_timeout;
    if (!PyArg_ParseTuple(args, "dd:set_timeouts", &init_timeout, &exit_timeout) || pool_unusable(self))
        return NULL;
    int error = tercio_set_timeouts(self->engine, init_timeout, exit_timeout);
    if (error < 0)
        return error_raise(self->env.st, self, error);
    self->init_timeout = init_timeout;
    self->exit_timeout = exit_timeout;
    Py_RETURN_NONE;
}

static PyObject *pool_left_behind(PyObject *o, PyObject *Py_UNUSED(none))
{
    return PyLong_FromSize_t(((PoolObject *)o)->n_left);
}

static PyObject *pool_exit_results(PyObject *o, PyObject *Py_UNUSED(none))
{
    PyObject *list = ((PoolObject *)o)->exit_results;
    return PyList_GetSlice(list, 0, PyList_GET_SIZE(list));
}

static PyObject *pool_pids(PyObject *o, PyObject *Py_UNUSED(none))
{
    PoolObject *self = (PoolObject *)o;
    if (self->engine == NULL || self->closing || pool_is_foreign(self))
        return PyList_New(0);
    int *pids = PyMem_Calloc(self->n_workers + 1u, sizeof *pids);
    if (pids == NULL)
        return PyErr_NoMemory();
    int n = tercio_worker_pids(self->engine, pids, self->n_workers);
    PyObject *list = n < 0 ? error_raise(self->env.st, self, n) : PyList_New(0);
    for (int i = 0; list != NULL && i < n && i < (int)self->n_workers; i++) {
        PyObject *pid = PyLong_FromLong(pids[i]);
        if (pid == NULL || PyList_Append(list, pid) < 0)
            Py_CLEAR(list);
        Py_XDECREF(pid);
    }
    PyMem_Free(pids);
    return list;
}

static PyObject *pool_stats(PyObject *o, PyObject *Py_UNUSED(none))
{
    PoolObject *self = (PoolObject *)o;
    if (self->engine == NULL || self->closing || pool_is_foreign(self))
        return self->last_stats != NULL ? PyList_GetSlice(self->last_stats, 0, PY_SSIZE_T_MAX) : PyList_New(0);
    return stats_now(self);
}

static PyObject *pool_map(PyObject *o, PyObject *args, PyObject *kwargs)
{
    return pool_unusable((PoolObject *)o) ? NULL : run_new((PoolObject *)o, args, kwargs);
}

static PyObject *pool_apply(PyObject *o, PyObject *args, PyObject *kwargs)
{
    return pool_unusable((PoolObject *)o) ? NULL : async_apply((PoolObject *)o, args, kwargs, false);
}

static PyObject *pool_apply_wait(PyObject *o, PyObject *args, PyObject *kwargs)
{
    return pool_unusable((PoolObject *)o) ? NULL : async_apply((PoolObject *)o, args, kwargs, true);
}

static PyObject *pool_wait_idle(PyObject *o, PyObject *Py_UNUSED(none))
{
    if (pool_unusable((PoolObject *)o) || async_wait_idle((PoolObject *)o) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *pool_get_n_workers(PyObject *o, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLong(((PoolObject *)o)->n_workers);
}

static PyObject *pool_get_method(PyObject *o, void *Py_UNUSED(closure))
{
    return PyUnicode_FromString(tercio_method_name(((PoolObject *)o)->method));
}

static PyGetSetDef pool_getset[] = {
    {"n_workers", pool_get_n_workers, NULL, "Number of workers.", NULL},
    {"method", pool_get_method, NULL, "How they were started.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

#define WITH_KEYWORDS(function) ((PyCFunction)(void (*)(void))(function))

static PyMethodDef pool_methods[] = {
    {"map", WITH_KEYWORDS(pool_map), METH_VARARGS | METH_KEYWORDS, "A MapRun over the items of an iterator."},
    {"apply", WITH_KEYWORDS(pool_apply), METH_VARARGS | METH_KEYWORDS, "Runs one task; an AsyncResult."},
    {"apply_wait", WITH_KEYWORDS(pool_apply_wait), METH_VARARGS | METH_KEYWORDS, "Runs one task; its result."},
    {"wait_idle", pool_wait_idle, METH_NOARGS, "Waits until all applied tasks are done, callbacks included."},
    {"finish", pool_finish, METH_NOARGS, "Waits for all work and ends the workers; what exit functions returned."},
    {"terminate", pool_terminate, METH_NOARGS, "Ends the workers. Never raises."},
    {"set_timeouts", pool_set_timeouts, METH_VARARGS, "New limits for init and exit functions, in seconds; 0: none."},
    {"left_behind", pool_left_behind, METH_NOARGS, "Threads that a pool that is gone could not end."},
    {"alive", pool_alive, METH_NOARGS, "Whether it can take work."},
    {"exit_results", pool_exit_results, METH_NOARGS, "What exit functions returned so far."},
    {"pids", pool_pids, METH_NOARGS, "Process ids of the workers; 0: a thread, or not running."},
    {"stats", pool_stats, METH_NOARGS, "What each worker did: a list of dicts."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot pool_slots[] = {
    {Py_tp_new, pool_new},
    {Py_tp_doc, "A set of live workers, started by the constructor."},
    {Py_tp_traverse, pool_traverse},
    {Py_tp_clear, pool_clear},
    {Py_tp_dealloc, pool_dealloc},
    {Py_tp_finalize, pool_finalize},
    {Py_tp_methods, pool_methods},
    {Py_tp_getset, pool_getset},
    {0, NULL},
};
PyType_Spec pool_spec = {
    .name = "tercio._core.Pool",
    .basicsize = sizeof(PoolObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = pool_slots,
};
