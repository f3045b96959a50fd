/* SPDX-License-Identifier: MIT
 *
 * How a worker comes to be, and goes: around a fork, signals, preparation, entering and leaving.
 */
#include "worker.h"

#include <marshal.h>
#include <signal.h>

#define PREPARE_ALIGN ((size_t)64)

/* ---- Around a fork ---------------------------------------------------------------------------------------------- */

/* Drops an error that is nobody's business here. An interrupt is somebody's: it comes again when we are through. */
static void drop_error(void)
{
    bool interrupt = PyErr_ExceptionMatches(PyExc_KeyboardInterrupt);
    if (!interrupt && !PyErr_ExceptionMatches(PyExc_Exception)) {
        error_unraisable(NULL);
        return;
    }
    PyErr_Clear();
    if (interrupt)
        PyErr_SetInterrupt();
}

static void flush(const char *name)
{
    PyObject *file = PySys_GetObject(name);
    if (file == NULL || file == Py_None)
        return;
    PyObject *done = PyObject_CallMethod(file, "flush", NULL);
    if (done == NULL)
        drop_error(); /* a closed or broken stream is not this fork's business */
    Py_XDECREF(done);
}

int worker_prepare_fork(core_state *st)
{
    static const int needed[] = {FN_GC_FREEZE,     FN_SIGNAL,       FN_GETSIGNAL,   FN_AT_FORK,
                                 FN_SET_WAKEUP_FD, FN_WORKER_ENTER, FN_WORKER_LIVE, FN_WORKER_LEAVE};
    for (size_t i = 0; i < sizeof needed / sizeof needed[0]; i++)
        if (core_function(st, needed[i]) == NULL)
            return -1;
    return 0;
}

void worker_before_fork(void *user)
{
    host_env *env = user;
    /* The caller of tercio_open holds the GIL; one that waits in the pool, and the supervisor, don't. */
    env->forks = attach(env->interp);
    flush("stdout"); /* what lies in a buffer now would be written twice */
    flush("stderr");
    PyOS_BeforeFork();
}

void worker_after_fork(void *user, bool in_child)
{
    host_env *env = user;
    if (!in_child) {
        PyOS_AfterFork_Parent();
        detach(env->forks);
        return;
    }
    PyOS_AfterFork_Child(); /* the GIL stays this thread's: the worker's loop goes on with it */
    if (env->pool != NULL)
        Py_INCREF(env->pool); /* the engine uses what it holds until this process ends */
    env->st->thread_workers = NULL;
    PyObject *freeze = env->st->functions[FN_GC_FREEZE];
    PyObject *done = freeze == NULL ? NULL : PyObject_CallNoArgs(freeze);
    if (done == NULL)
        PyErr_Clear();
    Py_XDECREF(done);
}

/* ---- Signals ---------------------------------------------------------------------------------------------------- */

/* Runs between two instructions of Python in the worker's main thread. */
static PyObject *on_signal(PyObject *module, PyObject *args)
{
    int number;
    PyObject *frame;
    if (!PyArg_ParseTuple(args, "iO:_on_signal", &number, &frame))
        return NULL;
    core_state *st = PyModule_GetState(module);
    worker *w = st->process_worker;
    if (w == NULL || tercio_call_stray(w->call))
        Py_RETURN_NONE;
    if (number == CORE_SOFT_SIGNAL) {
        /* It may come late, when what it meant is done. */
        if (w->busy && tercio_stopping(w->call)) {
            w->told = true;
            PyErr_SetNone(st->interrupted);
            return NULL;
        }
        Py_RETURN_NONE;
    }
    if (w->busy)
        return PyErr_Format(PyExc_RuntimeError, "Worker-%u was killed: it was told to end by %s",
                            tercio_worker_id(w->call), number == SIGTERM ? "SIGTERM" : "SIGHUP");
    signal(number, SIG_DFL); /* nothing runs: end as asked, and let the parent see by what */
    raise(number);
    Py_RETURN_NONE;
}

static PyMethodDef on_signal_method = {"_on_signal", on_signal, METH_VARARGS, NULL};

/* What is raised in a destructor, or in a callback of the collector's, ends here, in sys.unraisablehook, and what runs
 * goes on. The import system has such a callback, too. An interruption comes again behind it. */
static PyObject *on_unraisable(PyObject *self, PyObject *unraisable)
{
    core_state *st = PyModule_GetState(PyTuple_GET_ITEM(self, 0));
    PyObject *type = PyObject_GetAttrString(unraisable, "exc_type");
    bool ours = type == st->interrupted;
    Py_XDECREF(type);
    if (!ours)
        return type == NULL ? NULL : PyObject_CallFunctionObjArgs(PyTuple_GET_ITEM(self, 1), unraisable, NULL);
    if (!worker_interrupt_again(st))
        raise(CORE_SOFT_SIGNAL);
    Py_RETURN_NONE;
}

static PyMethodDef on_unraisable_method = {"_on_unraisable", on_unraisable, METH_O, NULL};

int worker_catch_unraisable(core_state *st)
{
    PyObject *before = PySys_GetObject("unraisablehook"); /* borrowed */
    if (before == NULL || (PyCFunction_Check(before) && PyCFunction_GET_FUNCTION(before) == on_unraisable))
        return 0; /* a worker's worker by fork has its parent's */
    PyObject *self = PyTuple_Pack(2, st->module, before);
    PyObject *hook = self == NULL ? NULL : PyCFunction_New(&on_unraisable_method, self);
    Py_XDECREF(self);
    int done = hook == NULL ? -1 : PySys_SetObject("unraisablehook", hook);
    Py_XDECREF(hook);
    return done;
}

static int taken_signal(int i)
{
    const int numbers[CORE_SIGNALS] = {SIGTERM, SIGHUP, CORE_SOFT_SIGNAL};
    return numbers[i];
}

static void give_back_signal(core_state *st, int i)
{
    PyObject *now = PyObject_CallFunction(st->functions[FN_GETSIGNAL], "i", taken_signal(i));
    bool ours = now != NULL && PyCFunction_Check(now) && PyCFunction_GET_FUNCTION(now) == on_signal;
    PyObject *handler =
        ours ? st->former[i] : now; /* the engine has put the former action in a task's handler's place */
    PyObject *done = NULL;
    if (handler != NULL && handler != Py_None) /* None: it isn't Python's */
        done = PyObject_CallFunction(st->functions[FN_SIGNAL], "iO", taken_signal(i), handler);
    if (done == NULL)
        PyErr_Clear();
    Py_XDECREF(done);
    Py_XDECREF(now);
    Py_CLEAR(st->former[i]);
}

/* In a process that a task has forked: its handlers are those that it would have without us. */
static PyObject *on_fork(PyObject *module, PyObject *Py_UNUSED(none))
{
    core_state *st = PyModule_GetState(module);
    for (int i = 0; i < CORE_SIGNALS; i++)
        if (st->former[i] != NULL)
            give_back_signal(st, i);
    Py_RETURN_NONE;
}

static PyMethodDef on_fork_method = {"_on_fork", on_fork, METH_NOARGS, NULL};

static int watch_forks(core_state *st)
{
    PyObject *function = core_function(st, FN_AT_FORK), *none = NULL, *named = NULL, *done = NULL;
    if (function == NULL || core_function(st, FN_GETSIGNAL) == NULL)
        return -1;
    if (st->watches_forks)
        return 0; /* a worker's worker by fork */
    PyObject *hook = PyCFunction_New(&on_fork_method, st->module);
    if (hook != NULL && (none = PyTuple_New(0)) != NULL &&
        (named = Py_BuildValue("{sO}", "after_in_child", hook)) != NULL)
        done = PyObject_Call(function, none, named);
    st->watches_forks = done != NULL;
    Py_XDECREF(done);
    Py_XDECREF(named);
    Py_XDECREF(none);
    Py_XDECREF(hook);
    return st->watches_forks ? 0 : -1;
}

/* The server has started with other dispositions than its parent has now: what the engine ignores, Python shall know of. */
static int ignore_signals(core_state *st)
{
    PyObject *ignore = PyLong_FromLong((long)(intptr_t)SIG_IGN);
    int done = ignore == NULL ? -1 : 0;
    for (int number = 1; done == 0 && number < NSIG; number++) {
        struct sigaction action;
        if (sigaction(number, NULL, &action) || action.sa_handler != SIG_IGN)
            continue;
        PyObject *before = PyObject_CallFunction(st->functions[FN_SIGNAL], "iO", number, ignore);
        done = before == NULL ? -1 : 0;
        Py_XDECREF(before);
    }
    Py_XDECREF(ignore);
    return done;
}

/* The parent's wakeup descriptor takes a worker's signals for the parent's. */
static int drop_wakeup(core_state *st)
{
    PyObject *function = core_function(st, FN_SET_WAKEUP_FD);
    PyObject *before = function == NULL ? NULL : PyObject_CallFunction(function, "i", -1);
    Py_XDECREF(before);
    return before == NULL ? -1 : 0;
}

/* What the parent ignores stays ignored. */
static int catch_signals(worker *w)
{
    core_state *st = w->st;
    PyObject *function = core_function(st, FN_SIGNAL);
    if (function == NULL || watch_forks(st) < 0)
        return -1;
    tercio_method method = tercio_call_method(w->call);
    if (method == TERCIO_FORK && drop_wakeup(st) < 0)
        return -1;
    if (method == TERCIO_FORKSERVER && ignore_signals(st) < 0)
        return -1;
    PyObject *handler = PyCFunction_New(&on_signal_method, st->module);
    if (handler == NULL)
        return -1;
    int done = 0;
    for (int i = 0; done == 0 && i < CORE_SIGNALS; i++) {
        if (!tercio_call_take_signal(w->call, taken_signal(i)))
            continue;
        PyObject *before = PyObject_CallFunction(function, "iO", taken_signal(i), handler);
        done = before == NULL ? -1 : 0;
        Py_XSETREF(st->former[i], before);
    }
    Py_DECREF(handler);
    return done < 0 ? -1 : worker_catch_unraisable(st);
}

void worker_signals(void *user, tercio_call *call)
{
    (void)user;
    worker *w = *tercio_call_user(call);
    if (w != NULL && !w->threading && PyErr_CheckSignals() < 0)
        error_unraisable(NULL); /* nothing runs that could be failed by it */
}

/* ---- Coming in -------------------------------------------------------------------------------------------------- */

static size_t padding_of(size_t size)
{
    return (PREPARE_ALIGN - size % PREPARE_ALIGN) % PREPARE_ALIGN;
}

void preparation_clear(preparation *p)
{
    for (Py_ssize_t i = 0; i < p->n_views; i++)
        PyBuffer_Release(&p->views[i]);
    PyMem_Free(p->views);
    PyMem_Free(p->pieces);
    Py_XDECREF(p->packed);
    *p = (preparation){0};
}

static int hold_parts(preparation *p, PyObject *parts, PyObject **sizes)
{
    Py_ssize_t n = PyTuple_GET_SIZE(parts);
    p->views = PyMem_Calloc((size_t)n + 1, sizeof *p->views);
    p->pieces = PyMem_Calloc(2 * (size_t)n + 3, sizeof *p->pieces);
    if (p->views == NULL || p->pieces == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    *sizes = PyTuple_New(n);
    if (*sizes == NULL)
        return -1;
    for (; p->n_views < n; p->n_views++) {
        Py_buffer *view = &p->views[p->n_views];
        if (PyObject_GetBuffer(PyTuple_GET_ITEM(parts, p->n_views), view, PyBUF_CONTIG_RO) < 0)
            return -1;
        PyObject *size = PyLong_FromSsize_t(view->len);
        if (size == NULL) {
            PyBuffer_Release(view);
            return -1;
        }
        PyTuple_SET_ITEM(*sizes, p->n_views, size);
    }
    return 0;
}

static void add_piece(preparation *p, const void *data, size_t size)
{
    static const char zeros[64];
    p->pieces[p->n_pieces++] = (tercio_bytes){data, size};
    p->pieces[p->n_pieces++] = (tercio_bytes){zeros, padding_of(size)};
}

int preparation_make(preparation *p, PoolObject *pool, PyObject *parts)
{
    PyObject *sizes = NULL, *params = NULL, *packed = NULL;
    int done = -1;
    *p = (preparation){0};
    if (hold_parts(p, parts, &sizes) < 0)
        goto out;
    params = Py_BuildValue("(IOlOO)", pool->n_workers, pool->daemon ? Py_True : Py_False, pool->pid,
                           pool->cpu_ids == NULL ? Py_None : pool->cpu_ids, sizes);
    packed = params == NULL ? NULL : PyMarshal_WriteObjectToString(params, Py_MARSHAL_VERSION);
    if (packed == NULL)
        goto out;
    uint64_t head = (uint64_t)PyBytes_GET_SIZE(packed);
    p->packed = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(sizeof head + head));
    if (p->packed == NULL)
        goto out;
    memcpy(PyBytes_AS_STRING(p->packed), &head, sizeof head);
    memcpy(PyBytes_AS_STRING(p->packed) + sizeof head, PyBytes_AS_STRING(packed), (size_t)head);
    add_piece(p, PyBytes_AS_STRING(p->packed), sizeof head + (size_t)head);
    for (Py_ssize_t i = 0; i < p->n_views; i++)
        add_piece(p, p->views[i].buf, (size_t)p->views[i].len);
    done = 0;
out:
    Py_XDECREF(sizes);
    Py_XDECREF(params);
    Py_XDECREF(packed);
    if (done < 0)
        preparation_clear(p);
    return done;
}

/* The parameters, and the parts as memoryviews over the mapping that the engine keeps as long as this process lives. */
static PyObject *unpack_preparation(tercio_bytes prepare, PyObject **parts)
{
    uint64_t head;
    if (prepare.size < sizeof head)
        goto broken;
    memcpy(&head, prepare.data, sizeof head);
    if (head > prepare.size - sizeof head)
        goto broken;
    const char *data = prepare.data;
    PyObject *params = PyMarshal_ReadObjectFromString(data + sizeof head, (Py_ssize_t)head);
    if (params == NULL)
        return NULL;
    if (!PyTuple_Check(params) || PyTuple_GET_SIZE(params) != 5 || !PyTuple_Check(PyTuple_GET_ITEM(params, 4))) {
        Py_DECREF(params);
        goto broken;
    }
    PyObject *sizes = PyTuple_GET_ITEM(params, 4);
    size_t at = (sizeof head + (size_t)head + PREPARE_ALIGN - 1) & ~(PREPARE_ALIGN - 1);
    PyObject *list = PyList_New(0);
    for (Py_ssize_t i = 0; list != NULL && i < PyTuple_GET_SIZE(sizes); i++) {
        size_t size = PyLong_AsSize_t(PyTuple_GET_ITEM(sizes, i));
        PyObject *view = NULL;
        if (!PyErr_Occurred() && at <= prepare.size && size <= prepare.size - at)
            view = PyMemoryView_FromMemory((char *)(uintptr_t)data + at, (Py_ssize_t)size, PyBUF_WRITE);
        if (view == NULL || PyList_Append(list, view) < 0)
            Py_CLEAR(list);
        Py_XDECREF(view);
        at += (size + PREPARE_ALIGN - 1) & ~(PREPARE_ALIGN - 1);
    }
    if (list == NULL) {
        Py_DECREF(params);
        if (PyErr_Occurred())
            return NULL;
        goto broken;
    }
    *parts = list;
    return params;

broken:
    PyErr_SetString(PyExc_ValueError, "a worker's preparation makes no sense: it is cut off or overwritten");
    return NULL;
}

static int pin(worker *w, PyObject *cpu_ids)
{
    if (cpu_ids == NULL || cpu_ids == Py_None)
        return 0;
    unsigned id = tercio_worker_id(w->call);
    if (!PyTuple_Check(cpu_ids) || id >= (size_t)PyTuple_GET_SIZE(cpu_ids))
        return 0;
    PyObject *function = core_function(w->st, FN_SET_AFFINITY);
    if (function == NULL) {
        PyErr_Clear(); /* the face has warned where the platform can't */
        return 0;
    }
    PyObject *done = PyObject_CallFunction(function, "iO", 0, PyTuple_GET_ITEM(cpu_ids, (Py_ssize_t)id));
    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}

/* What options.descriptors are here. */
static PyObject *descriptors_of(worker *w)
{
    PyObject *list = PyList_New(0);
    int fd;
    for (size_t i = 0; list != NULL && (fd = tercio_call_descriptor(w->call, i)) >= 0; i++) {
        PyObject *number = PyLong_FromLong(fd);
        if (number == NULL || PyList_Append(list, number) < 0)
            Py_CLEAR(list);
        Py_XDECREF(number);
    }
    return list;
}

static int enter_process(worker *w, host_env *env, tercio_bytes prepare)
{
    core_state *st = w->st;
    PyObject *params = NULL, *parts = NULL, *shared = NULL, *enter = NULL, *descriptors = NULL;
    int done = -1;
    st->process_worker = w;
    if (catch_signals(w) < 0)
        return -1;
    if (env->pool == NULL) {
        params = unpack_preparation(prepare, &parts);
        if (params == NULL)
            return -1;
    }
    PyObject *cpu_ids = params != NULL ? PyTuple_GET_ITEM(params, 3) : env->pool->cpu_ids;
    if (pin(w, cpu_ids) < 0)
        goto done;
    enter = core_function(st, FN_WORKER_ENTER);
    if (enter == NULL)
        goto done;
    const char *method = tercio_method_name(tercio_call_method(w->call));
    descriptors = descriptors_of(w);
    if (descriptors == NULL)
        goto done;
    if (params != NULL)
        shared =
            PyObject_CallFunction(enter, "OOOsOOO", w->id, PyTuple_GET_ITEM(params, 0), PyTuple_GET_ITEM(params, 1),
                                  method, PyTuple_GET_ITEM(params, 2), parts, descriptors);
    else
        shared =
            PyObject_CallFunction(enter, "OIOslOO", w->id, env->pool->n_workers, env->pool->daemon ? Py_True : Py_False,
                                  method, env->pool->pid, Py_None, descriptors);
    if (shared == NULL)
        goto done;
    if (env->pool != NULL && env->pool->shared != NULL) {
        Py_INCREF(env->pool->shared);
        Py_SETREF(shared, env->pool->shared);
    }
    if (shared != Py_None) {
        w->shared = shared;
        shared = NULL;
    }
    done = 0;

done:
    Py_XDECREF(descriptors);
    Py_XDECREF(shared);
    Py_XDECREF(parts);
    Py_XDECREF(params);
    return done;
}

/* Makes this thread known to threading, or takes it out of its books: nobody else does that for a thread which threading
 * didn't start. A courtesy: failing it fails nothing. */
static void tell_threading(worker *w, int which, PyObject *argument)
{
    PyObject *function = core_function(w->st, which);
    PyObject *done = function == NULL ? NULL : PyObject_CallFunctionObjArgs(function, argument, NULL);
    Py_XDECREF(done);
    PyErr_Clear();
}

/* Has the tools watch this thread that watch each thread of threading's. A courtesy as well. */
static void trace_thread(worker *w)
{
    PyObject *function = core_function(w->st, FN_WORKER_TRACE);
    PyObject *done = function == NULL ? NULL : PyObject_CallNoArgs(function);
    if (done == NULL)
        error_unraisable(function);
    Py_XDECREF(done);
}

static int enter_thread(worker *w, host_env *env)
{
    w->ident = PyThread_get_thread_ident();
    w->next = w->st->thread_workers;
    w->st->thread_workers = w;
    tell_threading(w, FN_THREAD_ENTER, w->id);
    trace_thread(w);
    if (env->pool->shared != NULL && env->pool->shared != Py_None) {
        Py_INCREF(env->pool->shared);
        w->shared = env->pool->shared;
    }
    return pin(w, env->pool->cpu_ids);
}

static void worker_delete(worker *w)
{
    for (worker **at = &w->st->thread_workers; *at != NULL; at = &(*at)->next) {
        if (*at == w) {
            *at = w->next;
            break;
        }
    }
    encoder_fini(&w->answer);
    Py_CLEAR(w->shared);
    Py_CLEAR(w->state);
    Py_CLEAR(w->id);
    Py_CLEAR(w->module);
    PyMem_RawFree(w);
}

int worker_enter(void *user, tercio_call *call, tercio_bytes prepare)
{
    host_env *env = user;
    bool threading = tercio_call_method(call) == TERCIO_THREADING;
    PyThreadState *ts = NULL;
    if (threading) {
        ts = attach_new(env->interp);
        if (ts == NULL)
            return 1;
    }
    worker *w = PyMem_RawCalloc(1, sizeof *w);
    if (w == NULL)
        goto fail;
    w->st = env->st;
    w->call = call;
    w->pool = env->pool;
    w->threading = threading;
    w->module = env->st->module;
    Py_INCREF(w->module);
    w->id = PyLong_FromUnsignedLong(tercio_worker_id(call));
    if (encoder_init(&w->answer, w->st, SERIALIZER_PICKLE) < 0 || w->id == NULL) {
        PyErr_Clear();
        goto fail;
    }
    if ((threading ? enter_thread(w, env) : enter_process(w, env, prepare)) < 0) {
        worker_leave_error(w, NULL);
        goto fail;
    }
    *tercio_call_user(call) = w;
    return 0;

fail:
    if (w != NULL) {
        w->st->process_worker = NULL;
        worker_delete(w);
    }
    if (threading)
        attach_end(ts);
    return 1;
}

/* The rest of the worker's life, as a function of Python's. */
static PyObject *run_rest(PyObject *module, PyObject *Py_UNUSED(none))
{
    core_state *st = PyModule_GetState(module);
    worker *w = st->process_worker;
    if (w != NULL && w->rest != NULL) {
        void (*rest)(tercio_call *) = w->rest;
        w->rest = NULL; /* once */
        rest(w->call);
        (void)fflush(stdout); /* os._exit, where it is called next, leaves that behind */
        (void)fflush(stderr);
    }
    Py_RETURN_NONE;
}

static PyMethodDef rest_method = {"_rest_of_life", run_rest, METH_NOARGS, NULL};

void worker_live(void *user, tercio_call *call, void (*rest)(tercio_call *))
{
    (void)user;
    worker *w = worker_of(call);
    core_state *st = w->st;
    w->rest = rest;
    PyObject *live = core_function(st, FN_WORKER_LIVE);
    PyObject *argument = live == NULL ? NULL : PyCFunction_New(&rest_method, st->module);
    PyObject *done = argument == NULL ? NULL : PyObject_CallOneArg(live, argument);
    Py_XDECREF(argument);
    if (done == NULL)
        error_unraisable(live);
    Py_XDECREF(done);
    if (w->rest != NULL) {
        w->rest = NULL;
        rest(call);
    }
}

/* Ends what belongs to this worker alone, so that its destructors run. */
static void drop_own(worker *w, bool shared_too)
{
    Py_CLEAR(w->state);
    if (shared_too)
        Py_CLEAR(w->shared);
}

void worker_leave(void *user, tercio_call *call)
{
    host_env *env = user;
    worker *w = *tercio_call_user(call);
    if (w == NULL)
        return;
    *tercio_call_user(call) = NULL;
    if (!w->threading) {
        drop_own(w, env->pool == NULL); /* a fork's are copies of the parent's */
        PyObject *leave = core_function(w->st, FN_WORKER_LEAVE);
        PyObject *done = leave == NULL ? NULL : PyObject_CallNoArgs(leave);
        if (done == NULL)
            error_unraisable(leave);
        Py_XDECREF(done);
        return; /* the process ends, and what is left goes with it */
    }
    tell_threading(w, FN_THREAD_LEAVE, NULL);
    worker_delete(w);
    attach_end(PyThreadState_Get());
}

/* A task has ended its thread. What it ran still stands on the thread's state, with which nothing can run any more, and at
 * which nobody may look any more. Another state is for what is to be done. */
void worker_lost(void *user, tercio_call *call)
{
    const host_env *env = user;
    worker *w = worker_of(call);
    if (w == NULL)
        return;
    *tercio_call_user(call) = NULL;
    PyThreadState *old = PyGILState_GetThisThreadState();
    if (old != NULL && old == _PyThreadState_UncheckedGet()) /* it ended with the GIL */
        (void)PyEval_SaveThread();
    PyThreadState *ts = attach_new(env->interp);
    if (ts == NULL)
        return;
    tell_threading(w, FN_THREAD_LEAVE, NULL);
    worker_delete(w);
    if (old != NULL) {
        PyThreadState_Clear(old);
        PyThreadState_Delete(old);
    }
    attach_end(ts);
}
