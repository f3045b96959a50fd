/* SPDX-License-Identifier: MIT
 *
 * The worker's side: what the engine calls in a worker, and around a fork. A process worker runs in its main thread,
 * a thread worker in a thread of the engine's that is attached to the interpreter that made the pool. Both hold the
 * GIL but between pause and resume.
 *
 * Answers are encode_value's bytes (status 0) or an error's, whose first byte tells: 'd' what tercio._errors.dump
 * made, 't' a text. Under threading both are one reference, which is told by its size; texts are made never to have it.
 */
#include "codec.h"

#include <marshal.h>
#include <signal.h>
#include <unistd.h>

#define STACK 16
#define PREPARE_ALIGN ((size_t)64)

typedef struct worker {
    core_state *st;
    PyObject *module;           /* strong: a thread that was left behind still needs the state */
    tercio_call *call;
    PoolObject *pool;           /* to compare with; not to be followed by threads that were left behind */
    PyThreadState *ts;
    PyObject *id, *shared, *state;
    encoder answer;
    int serializer;
    bool threading, busy, told; /* told: an exception was put into this thread from outside */
    CallObject *now;            /* what runs */
    uint64_t index;
    unsigned long ident;
    struct worker *next;        /* of st->thread_workers */
} worker;

/* ---- Around a fork ---------------------------------------------------------------------------------------------- */

static void flush(const char *name)
{
    PyObject *file = PySys_GetObject(name);
    if (file == NULL || file == Py_None)
        return;
    PyObject *done = PyObject_CallMethod(file, "flush", NULL);
    if (done == NULL)
        PyErr_Clear(); /* a closed or broken stream is not this fork's business */
    Py_XDECREF(done);
}

static void host_before_fork(void *user)
{
    host_env *env = user;
    /* The caller of tercio_open holds the GIL; one that waits in the pool, and the supervisor, don't. */
    PyGILState_STATE gil = PyGILState_Ensure();
    env->gil = gil;
    if (env->st->functions[FN_GC_FREEZE] == NULL && core_function(env->st, FN_GC_FREEZE) == NULL)
        PyErr_Clear();
    flush("stdout"); /* what lies in a buffer now would be written twice */
    flush("stderr");
    PyOS_BeforeFork();
}

static void host_after_fork(void *user, bool in_child)
{
    host_env *env = user;
    if (!in_child) {
        PyOS_AfterFork_Parent();
        PyGILState_Release(env->gil);
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

/* ---- Errors as answers ------------------------------------------------------------------------------------------ */

static void put_text(encoder *e, const char *text, size_t size)
{
    encoder_reset(e);
    if (size > 4000)
        size = 4000;
    if (e->capacity < size + 16) {
        unsigned char *data = PyMem_Realloc(e->data, size + 16);
        if (data == NULL)
            size = e->capacity - 16; /* it has 512 bytes from its beginning */
        else {
            e->data = data;
            e->capacity = size + 16;
        }
    }
    e->data[0] = 't';
    memcpy(e->data + 1, text, size);
    e->size = size + 1;
    while (e->size <= sizeof(void *))
        e->data[e->size++] = ' ';
}

static int put_dump(encoder *e, PyObject *bytes)
{
    size_t size = (size_t)PyBytes_GET_SIZE(bytes);
    encoder_reset(e);
    if (e->capacity < size + 16) {
        unsigned char *data = PyMem_Realloc(e->data, size + 16);
        if (data == NULL)
            return -1;
        e->data = data;
        e->capacity = size + 16;
    }
    e->data[0] = 'd';
    memcpy(e->data + 1, PyBytes_AS_STRING(bytes), size);
    e->size = size + 1;
    return size >= sizeof(void *) ? 0 : -1;
}

/* Calls tercio._errors.dump or dress with the worker, and what the task was called with. */
static PyObject *describe(worker *w, int which, PyObject *exc, CallObject *c, PyObject *item, bool explicit_arguments)
{
    PyObject *args = NULL, *kwargs = NULL, *made = NULL;
    PyObject *function = core_function(w->st, which);
    if (function == NULL)
        return NULL;
    /* An iterator has been used up by the call; asking it again could even block. */
    if (item != NULL && c != NULL && !PyIter_Check(item) &&
        call_unpack(c, item, explicit_arguments, &args, &kwargs) < 0)
        PyErr_Clear();
    made = PyObject_CallFunctionObjArgs(function, exc, w->id, args == NULL ? Py_None : args,
                                        kwargs == NULL ? Py_None : kwargs, c == NULL ? Py_None : c->func, NULL);
    Py_XDECREF(args);
    Py_XDECREF(kwargs);
    return made;
}

static void put_plain(worker *w, PyObject *exc)
{
    PyObject *text = PyObject_Str(exc);
    PyErr_Clear();
    PyObject *line = PyUnicode_FromFormat("%s: %V", Py_TYPE(exc)->tp_name, text, "(its text could not be had)");
    Py_ssize_t n = 0;
    const char *utf8 = line == NULL ? NULL : PyUnicode_AsUTF8AndSize(line, &n);
    PyErr_Clear();
    if (utf8 == NULL)
        put_text(&w->answer, "the task failed", 15);
    else
        put_text(&w->answer, utf8, (size_t)n);
    Py_XDECREF(line);
    Py_XDECREF(text);
}

/* Turns what is raised into the answer. Never fails; nothing is raised afterwards. `reference_allowed`: the answer
 * is read once (under threading it may then be the exception itself). */
static void put_error(worker *w, CallObject *c, PyObject *item, bool explicit_arguments, bool reference_allowed)
{
    PyObject *exc = core_take_exception();
    if (exc == NULL) {
        put_text(&w->answer, "the task failed without an error", 32);
        return;
    }
    if (PyObject_TypeCheck(exc, (PyTypeObject *)w->st->interrupted)) {
        put_text(&w->answer, "interrupted", 11); /* the engine knows why and says so itself */
    } else if (w->threading && reference_allowed) {
        PyObject *same = describe(w, FN_ERROR_DRESS, exc, c, item, explicit_arguments);
        PyErr_Clear();
        Py_XDECREF(same);
        encoder_reset(&w->answer);
        if (encode_reference(&w->answer, exc, false) < 0) {
            PyErr_Clear();
            put_plain(w, exc);
        }
    } else {
        PyObject *bytes = describe(w, FN_ERROR_DUMP, exc, c, item, explicit_arguments);
        PyErr_Clear();
        if (bytes == NULL || !PyBytes_Check(bytes) || put_dump(&w->answer, bytes) < 0)
            put_plain(w, exc);
        Py_XDECREF(bytes);
    }
    Py_DECREF(exc);
}

static int leave_error(worker *w, CallObject *c)
{
    put_error(w, c, NULL, false, false);
    tercio_leave(w->call, TERCIO_EFAILED, encoder_parts(&w->answer), w->answer.n_parts);
    return 1;
}

PyObject *worker_handed_over(const PoolObject *pool, const tercio_result *r)
{
    bool flag;
    if (pool->method != TERCIO_THREADING || r->out.size != sizeof(void *) || r->n_blocks != 0)
        return NULL;
    return reference_at(r->out.data, 0, &flag);
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
            PyErr_SetNone(st->interrupted);
            return NULL;
        }
        Py_RETURN_NONE;
    }
    if (w->busy)
        return PyErr_Format(PyExc_RuntimeError, "Worker-%u was told to end by %s", tercio_worker_id(w->call),
                            number == SIGTERM ? "SIGTERM" : "SIGHUP");
    signal(number, SIG_DFL); /* nothing runs: end as asked, and let the parent see by what */
    raise(number);
    Py_RETURN_NONE;
}

static PyMethodDef on_signal_method = {"_on_signal", on_signal, METH_VARARGS, NULL};

static int catch_signals(core_state *st)
{
    const int numbers[] = {SIGTERM, SIGHUP, CORE_SOFT_SIGNAL};
    PyObject *function = core_function(st, FN_SIGNAL);
    if (function == NULL)
        return -1;
    PyObject *handler = PyCFunction_New(&on_signal_method, st->module);
    if (handler == NULL)
        return -1;
    int done = 0;
    for (size_t i = 0; done == 0 && i < sizeof numbers / sizeof numbers[0]; i++) {
        PyObject *before = PyObject_CallFunction(function, "iO", numbers[i], handler);
        done = before == NULL ? -1 : 0;
        Py_XDECREF(before);
    }
    Py_DECREF(handler);
    return done;
}

static void host_signals(void *user, tercio_call *call)
{
    (void)user;
    worker *w = *tercio_call_user(call);
    if (w != NULL && !w->threading && PyErr_CheckSignals() < 0)
        error_unraisable(NULL); /* nothing runs that could be failed by it */
}

/* ---- Coming in -------------------------------------------------------------------------------------------------- */

PyObject *worker_preparation(PoolObject *pool, PyObject *parts)
{
    PyObject *blob = NULL, *params = NULL, *packed = NULL, *sizes = NULL;
    Py_ssize_t n = PyTuple_GET_SIZE(parts), held = 0;
    Py_buffer *views = PyMem_Calloc((size_t)n + 1, sizeof *views);
    if (views == NULL)
        return PyErr_NoMemory();
    sizes = PyTuple_New(n);
    if (sizes == NULL)
        goto done;
    for (; held < n; held++) {
        if (PyObject_GetBuffer(PyTuple_GET_ITEM(parts, held), &views[held], PyBUF_CONTIG_RO) < 0)
            goto done;
        PyObject *size = PyLong_FromSsize_t(views[held].len);
        if (size == NULL) {
            PyBuffer_Release(&views[held]);
            goto done;
        }
        PyTuple_SET_ITEM(sizes, held, size);
    }
    params = Py_BuildValue("(IOlOO)", pool->n_workers, pool->daemon ? Py_True : Py_False, pool->pid,
                           pool->cpu_ids == NULL ? Py_None : pool->cpu_ids, sizes);
    if (params == NULL)
        goto done;
    packed = PyMarshal_WriteObjectToString(params, Py_MARSHAL_VERSION);
    if (packed == NULL)
        goto done;
    uint64_t head = (uint64_t)PyBytes_GET_SIZE(packed);
    size_t total = (sizeof head + (size_t)head + PREPARE_ALIGN - 1) & ~(PREPARE_ALIGN - 1);
    for (Py_ssize_t i = 0; i < n; i++)
        total += ((size_t)views[i].len + PREPARE_ALIGN - 1) & ~(PREPARE_ALIGN - 1);
    blob = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)total);
    if (blob == NULL)
        goto done;
    char *at = PyBytes_AS_STRING(blob);
    memcpy(at, &head, sizeof head);
    memcpy(at + sizeof head, PyBytes_AS_STRING(packed), (size_t)head);
    at += (sizeof head + (size_t)head + PREPARE_ALIGN - 1) & ~(PREPARE_ALIGN - 1);
    for (Py_ssize_t i = 0; i < n; i++) {
        memcpy(at, views[i].buf, (size_t)views[i].len);
        at += ((size_t)views[i].len + PREPARE_ALIGN - 1) & ~(PREPARE_ALIGN - 1);
    }

done:
    while (held > 0)
        PyBuffer_Release(&views[--held]);
    PyMem_Free(views);
    Py_XDECREF(sizes);
    Py_XDECREF(params);
    Py_XDECREF(packed);
    return blob;
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

static int enter_process(worker *w, host_env *env, tercio_bytes prepare)
{
    core_state *st = w->st;
    PyObject *params = NULL, *parts = NULL, *shared = NULL, *enter = NULL;
    int done = -1;
    st->process_worker = w;
    if (catch_signals(st) < 0)
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
    if (params != NULL)
        shared = PyObject_CallFunction(enter, "OOOsOO", w->id, PyTuple_GET_ITEM(params, 0),
                                       PyTuple_GET_ITEM(params, 1), method, PyTuple_GET_ITEM(params, 2), parts);
    else
        shared = PyObject_CallFunction(enter, "OIOslO", w->id, env->pool->n_workers,
                                       env->pool->daemon ? Py_True : Py_False, method, env->pool->pid, Py_None);
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
    Py_XDECREF(shared);
    Py_XDECREF(parts);
    Py_XDECREF(params);
    return done;
}

/* Names this thread for threading.current_thread(). A courtesy: failing it fails nothing. */
static void name_thread(worker *w)
{
    PyObject *function = core_function(w->st, FN_CURRENT_THREAD);
    PyObject *thread = function == NULL ? NULL : PyObject_CallNoArgs(function);
    PyObject *name = PyUnicode_FromFormat("Worker-%u", tercio_worker_id(w->call));
    if (thread != NULL && name != NULL)
        PyObject_SetAttrString(thread, "name", name);
    Py_XDECREF(thread);
    Py_XDECREF(name);
    PyErr_Clear();
}

/* Takes this thread out of threading's books: nobody else does it for a thread that it didn't start. */
static void forget_thread(worker *w)
{
    PyObject *module = PyImport_ImportModule("threading");
    PyObject *active = module == NULL ? NULL : PyObject_GetAttrString(module, "_active");
    PyObject *ident = PyLong_FromUnsignedLong(w->ident);
    if (active != NULL && ident != NULL && PyDict_Check(active))
        PyDict_DelItem(active, ident);
    PyErr_Clear();
    Py_XDECREF(ident);
    Py_XDECREF(active);
    Py_XDECREF(module);
}

static int enter_thread(worker *w, host_env *env)
{
    w->ident = PyThread_get_thread_ident();
    w->next = w->st->thread_workers;
    w->st->thread_workers = w;
    name_thread(w);
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

static int host_enter(void *user, tercio_call *call, tercio_bytes prepare)
{
    host_env *env = user;
    bool threading = tercio_call_method(call) == TERCIO_THREADING;
    PyThreadState *ts = NULL;
    if (threading) {
        ts = PyThreadState_New(env->interp);
        if (ts == NULL)
            return 1;
        PyEval_RestoreThread(ts);
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
        leave_error(w, NULL);
        goto fail;
    }
    *tercio_call_user(call) = w;
    return 0;

fail:
    if (w != NULL) {
        w->st->process_worker = NULL;
        worker_delete(w);
    }
    if (threading) {
        PyThreadState_Clear(ts);
        PyThreadState_DeleteCurrent();
    }
    return 1;
}

static void host_leave(void *user, tercio_call *call)
{
    (void)user;
    worker *w = *tercio_call_user(call);
    if (w == NULL)
        return;
    *tercio_call_user(call) = NULL;
    if (!w->threading) {
        PyObject *leave = core_function(w->st, FN_WORKER_LEAVE);
        PyObject *done = leave == NULL ? NULL : PyObject_CallNoArgs(leave);
        if (done == NULL)
            error_unraisable(leave);
        Py_XDECREF(done);
        return; /* the process ends: what is left goes with it, without running anybody's destructors */
    }
    forget_thread(w);
    worker_delete(w);
    PyThreadState_Clear(PyThreadState_Get());
    PyThreadState_DeleteCurrent();
}

static void host_pause(void *user, tercio_call *call)
{
    (void)user;
    worker *w = *tercio_call_user(call);
    if (w != NULL)
        w->ts = PyEval_SaveThread();
}

static void host_resume(void *user, tercio_call *call)
{
    (void)user;
    worker *w = *tercio_call_user(call);
    if (w != NULL && w->ts != NULL) {
        PyThreadState *ts = w->ts;
        w->ts = NULL;
        PyEval_RestoreThread(ts);
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
    put_error(w, c, item, explicit_arguments, true);
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
    put_error(w, c, NULL, false, true);
    error = tercio_commit(w->call, TERCIO_EFAILED, 0, encoder_parts(&w->answer), w->answer.n_parts);
    if (error < 0)
        take_back(w);
    return error;
}

static int host_run(void *user, tercio_call *call, const tercio_chunk *chunk)
{
    (void)user;
    worker *w = *tercio_call_user(call);
    CallObject *c = chunk->context;
    item_cursor cursor = {.at = chunk->message.data};
    cursor.end = cursor.at + chunk->message.size;
    buffers b = buffers_of_chunk(w->st, call, chunk);
    int done = 0;
    w->now = c;
    w->answer.serializer = c->serializer;
    for (uint32_t i = 0; i < chunk->n_items && done == 0; i++) {
        item_frame f = {0};
        PyObject *item = NULL;
        bool explicit_arguments;
        if (w->threading) {
            if (i < chunk->skip)
                continue;
            item = reference_at(chunk->message.data, i, &explicit_arguments);
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
            put_error(w, c, NULL, false, true);
        else
            status = run_item(w, c, item, explicit_arguments);
        w->busy = false;
        if (w->told) {
            w->told = false;
            PyThreadState_SetAsyncExc(w->ident, NULL);
        }
        done = commit(w, c, status);
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
    worker *w = *tercio_call_user(call);
    w->busy = true;
    CallObject *c = call_from_context(w->st, env->pool, call, context);
    w->busy = false;
    if (c == NULL)
        return leave_error(w, NULL);
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
    PyObject *result =
        PyObject_Vectorcall(function, stack + 1, (size_t)n | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
    w->busy = false;
    end_stray(w);
    return result;
}

static int host_init(void *user, tercio_call *call, void *context)
{
    (void)user;
    worker *w = *tercio_call_user(call);
    CallObject *c = context;
    if (c == NULL || c->worker_init == NULL)
        return 0;
    PyObject *result = invoke_around(w, c, c->worker_init);
    if (result == NULL)
        return leave_error(w, c);
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
    worker *w = *tercio_call_user(call);
    CallObject *c = context;
    if (c == NULL || c->worker_exit == NULL)
        return;
    PyObject *result = invoke_around(w, c, c->worker_exit);
    if (result == NULL || put_exit_result(w, c, result) < 0) {
        leave_error(w, c);
    } else if (tercio_leave(call, 0, encoder_parts(&w->answer), w->answer.n_parts) < 0) {
        take_back(w);
        PyErr_SetString(PyExc_MemoryError, "the result of worker_exit is too large to be sent");
        leave_error(w, c);
    }
    Py_XDECREF(result);
}

/* ---- In the parent ---------------------------------------------------------------------------------------------- */

static void host_notify(void *user, tercio_run *run)
{
    host_env *env = user;
    PyGILState_STATE gil = PyGILState_Ensure();
    if (env->pool != NULL && !env->pool->closing)
        async_notify(env->pool, run);
    PyGILState_Release(gil);
}

static void host_drop(void *user, tercio_bytes message, uint32_t n_items, uint32_t skip, bool is_answer)
{
    (void)user;
    bool flag;
    if (is_answer ? message.size != sizeof(void *) : message.size < n_items * sizeof(void *))
        return;
    PyGILState_STATE gil = PyGILState_Ensure();
    if (is_answer)
        Py_DECREF(reference_at(message.data, 0, &flag));
    else
        for (uint32_t i = skip; i < n_items; i++)
            Py_DECREF(reference_at(message.data, i, &flag));
    PyGILState_Release(gil);
}

void worker_interrupt_threads(core_state *st, PoolObject *pool, CallObject *call, uint64_t index)
{
    for (worker *w = st->thread_workers; w != NULL; w = w->next) {
        if (w->pool != pool || !w->busy || (index != UINT64_MAX && (w->now != call || w->index != index)))
            continue;
        w->told = true;
        PyThreadState_SetAsyncExc(w->ident, st->interrupted);
    }
}

const tercio_host core_host = {
    .size = sizeof core_host,
    .before_fork = host_before_fork,
    .after_fork = host_after_fork,
    .notify = host_notify,
    .drop = host_drop,
    .enter = host_enter,
    .open_context = host_open_context,
    .close_context = host_close_context,
    .init = host_init,
    .run = host_run,
    .exit = host_exit,
    .leave = host_leave,
    .pause = host_pause,
    .resume = host_resume,
    .signals = host_signals,
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
