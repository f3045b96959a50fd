/* SPDX-License-Identifier: MIT
 *
 * Call: a function with its init and exit functions, and how it is called. A run's context is what a worker needs to
 * have one: its number where the worker inherited it (fork) or shares it (threading), else its pickle.
 */
#include "codec.h"

typedef struct {
    uint64_t id;
    uint8_t inherited, serializer, flags, reserved;
    uint32_t size; /* of the pickle behind this, when it is not in a part of its own */
} context_head;

enum { PASS_WORKER_ID = 1, PASS_SHARED = 2, USE_STATE = 4, UNPACK = 8 };

int call_serializer(PyObject *name)
{
    static const char *const names[SERIALIZER_COUNT] = {"pickle", "dill", "cloudpickle"};
    if (PyUnicode_Check(name)) {
        for (int i = 0; i < SERIALIZER_COUNT; i++)
            if (PyUnicode_CompareWithASCIIString(name, names[i]) == 0)
                return i;
    }
    PyErr_Format(PyExc_ValueError, "serializer must be 'pickle', 'dill' or 'cloudpickle', not %R", name);
    return -1;
}

static PyObject *serializer_name(int serializer)
{
    static const char *const names[SERIALIZER_COUNT] = {"pickle", "dill", "cloudpickle"};
    return PyUnicode_FromString(names[serializer]);
}

static PyObject *optional(PyObject *function)
{
    if (function == NULL || function == Py_None)
        return NULL;
    Py_INCREF(function);
    return function;
}

static CallObject *call_make(core_state *st, PyObject *func, PyObject *init, PyObject *leave)
{
    CallObject *self = (CallObject *)st->call_type->tp_alloc(st->call_type, 0);
    if (self == NULL)
        return NULL;
    Py_INCREF(func);
    self->st = st;
    self->func = func;
    self->worker_init = optional(init);
    self->worker_exit = optional(leave);
    self->packed_method = TERCIO_DEFAULT;
    return self;
}

static PyObject *call_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {
        "func",       "worker_init", "worker_exit", "pass_worker_id", "pass_shared_objects", "use_worker_state",
        "serializer", "unpack",      NULL};
    PyObject *func, *init = NULL, *leave = NULL, *serializer = NULL;
    int pass_worker_id = 0, pass_shared = 0, use_state = 0, unpack = 1;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|OO$pppOp:Call", names, &func, &init, &leave, &pass_worker_id,
                                     &pass_shared, &use_state, &serializer, &unpack))
        return NULL;
    int kind = serializer == NULL ? SERIALIZER_PICKLE : call_serializer(serializer);
    if (kind < 0)
        return NULL;
    core_state *st = core_of_type(type);
    CallObject *self = call_make(st, func, init, leave);
    if (self == NULL)
        return NULL;
    self->id = ++st->next_call_id;
    self->serializer = kind;
    self->pass_worker_id = pass_worker_id != 0;
    self->pass_shared = pass_shared != 0;
    self->use_state = use_state != 0;
    self->unpack = unpack != 0;
    return (PyObject *)self;
}

static int call_traverse(PyObject *o, visitproc visit, void *arg)
{
    CallObject *self = (CallObject *)o;
    Py_VISIT(Py_TYPE(o));
    Py_VISIT(self->func);
    Py_VISIT(self->worker_init);
    Py_VISIT(self->worker_exit);
    Py_VISIT(self->packed);
    return 0;
}

static int call_clear(PyObject *o)
{
    CallObject *self = (CallObject *)o;
    Py_CLEAR(self->func);
    Py_CLEAR(self->worker_init);
    Py_CLEAR(self->worker_exit);
    Py_CLEAR(self->packed);
    return 0;
}

static void call_dealloc(PyObject *o)
{
    PyTypeObject *type = Py_TYPE(o);
    PyObject_GC_UnTrack(o);
    call_clear(o);
    type->tp_free(o);
    Py_DECREF(type);
}

static PyObject *call_get(PyObject *o, void *which)
{
    CallObject *self = (CallObject *)o;
    PyObject *v = which == NULL ? self->func : *(const char *)which == 'i' ? self->worker_init : self->worker_exit;
    if (v == NULL)
        v = Py_None;
    Py_INCREF(v);
    return v;
}

static PyGetSetDef call_getset[] = {
    {"func", call_get, NULL, "The task's function.", NULL},
    {"worker_init", call_get, NULL, "Called in each worker before its first task, or None.", "i"},
    {"worker_exit", call_get, NULL, "Called in each worker that has worked, at its end, or None.", "e"},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot call_slots[] = {
    {Py_tp_new, call_new},
    {Py_tp_doc, "A function and how it is called; sent to each worker once."},
    {Py_tp_traverse, call_traverse},
    {Py_tp_clear, call_clear},
    {Py_tp_dealloc, call_dealloc},
    {Py_tp_getset, call_getset},
    {0, NULL},
};
PyType_Spec call_spec = {
    .name = "tercio._core.Call",
    .basicsize = sizeof(CallObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = call_slots,
};

PyObject *call_name(CallObject *call)
{
    PyObject *name = PyObject_GetAttrString(call->func, "__qualname__");
    if (name == NULL) {
        PyErr_Clear();
        name = PyObject_Repr(call->func);
    }
    if (name == NULL) {
        PyErr_Clear();
        name = PyUnicode_FromString("?");
    }
    return name;
}

/* ---- The way to the worker -------------------------------------------------------------------------------------- */

/* The pickled call, made once for each start method. Returns a borrowed list. */
static PyObject *packed_call(CallObject *call, tercio_method method)
{
    if (call->packed != NULL && call->packed_method == method)
        return call->packed;
    PyObject *dump = core_function(call->st, FN_DUMP_CALL);
    if (dump == NULL)
        return NULL;
    PyObject *name = serializer_name(call->serializer);
    if (name == NULL)
        return NULL;
    PyObject *given = PyObject_CallFunction(
        dump, "((OOO)Ns)", call->func, call->worker_init == NULL ? Py_None : call->worker_init,
        call->worker_exit == NULL ? Py_None : call->worker_exit, name, tercio_method_name(method));
    if (given == NULL)
        return NULL;
    PyObject *list = PySequence_List(given);
    Py_DECREF(given);
    if (list == NULL)
        return NULL;
    if (PyList_GET_SIZE(list) == 0) {
        Py_DECREF(list);
        PyErr_SetString(PyExc_TypeError, "dump_call() must return at least one part");
        return NULL;
    }
    Py_XSETREF(call->packed, list);
    call->packed_method = method;
    return list;
}

int call_open_run(CallObject *call, PoolObject *pool, const tercio_map_options *options, tercio_run **run)
{
    context_head head = {.id = call->id, .serializer = (uint8_t)call->serializer};
    head.flags = (uint8_t)((call->pass_worker_id ? PASS_WORKER_ID : 0) | (call->pass_shared ? PASS_SHARED : 0) |
                           (call->use_state ? USE_STATE : 0) | (call->unpack ? UNPACK : 0));
    head.inherited = pool->method == TERCIO_THREADING || (pool->method == TERCIO_FORK && call == pool->first_call);
    if (head.inherited) {
        tercio_bytes part = {.data = &head, .size = sizeof head};
        int error = tercio_run_open(pool->engine, &part, 1, options, run);
        if (error < 0) {
            error_raise(call->st, pool, error);
            return -1;
        }
        return 0;
    }

    int done = -1;
    Py_ssize_t n = 0, held = 0;
    Py_buffer *views = NULL;
    tercio_bytes *parts = NULL;
    char *first = NULL;
    PyObject *list = packed_call(call, pool->method);
    if (list == NULL)
        return -1;
    Py_INCREF(list);
    n = PyList_GET_SIZE(list);
    views = PyMem_Calloc((size_t)n, sizeof *views);
    parts = PyMem_Calloc((size_t)n, sizeof *parts);
    if (views == NULL || parts == NULL) {
        PyErr_NoMemory();
        goto done;
    }
    for (; held < n; held++) {
        if (PyObject_GetBuffer(PyList_GET_ITEM(list, held), &views[held], PyBUF_CONTIG_RO) < 0)
            goto done;
        parts[held] = (tercio_bytes){.data = views[held].buf, .size = (size_t)views[held].len};
    }
    if (parts[0].size > UINT32_MAX) {
        error_raise(call->st, pool, TERCIO_ETOOBIG);
        goto done;
    }
    head.size = (uint32_t)parts[0].size;
    first = PyMem_Malloc(sizeof head + parts[0].size);
    if (first == NULL) {
        PyErr_NoMemory();
        goto done;
    }
    memcpy(first, &head, sizeof head);
    memcpy(first + sizeof head, parts[0].data, parts[0].size);
    parts[0] = (tercio_bytes){.data = first, .size = sizeof head + parts[0].size};
    int error = tercio_run_open(pool->engine, parts, (size_t)n, options, run);
    if (error < 0)
        error_raise(call->st, pool, error);
    else
        done = 0;

done:
    PyMem_Free(first);
    while (held > 0)
        PyBuffer_Release(&views[--held]);
    PyMem_Free(parts);
    PyMem_Free(views);
    Py_DECREF(list);
    return done;
}

/* A call that needed no pickle: the pool's first, or (threads) that of a run which is open. */
static CallObject *known_call(PoolObject *pool, uint64_t id)
{
    CallObject *found = NULL;
    if (pool != NULL && pool->first_call != NULL && pool->first_call->id == id)
        found = pool->first_call;
    for (RunObject *run = pool == NULL ? NULL : pool->runs; run != NULL && found == NULL; run = run_next_of_pool(run))
        if (run_call(run)->id == id)
            found = run_call(run);
    if (pool != NULL && found == NULL)
        found = async_find_call(pool, id);
    if (found == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "the worker doesn't know the function that it should call");
        return NULL;
    }
    Py_INCREF(found);
    return found;
}

CallObject *call_from_context(core_state *st, PoolObject *pool, tercio_call *at, const tercio_chunk *chunk)
{
    context_head head;
    if (chunk->message.size < sizeof head)
        goto broken;
    memcpy(&head, chunk->message.data, sizeof head);
    if (head.inherited)
        return known_call(pool, head.id);
    if (head.serializer >= SERIALIZER_COUNT || head.size != chunk->message.size - sizeof head)
        goto broken;

    CallObject *call = NULL;
    PyObject *name = NULL, *given = NULL, *tuple = NULL;
    PyObject *parts = PyList_New((Py_ssize_t)chunk->n_blocks + 1);
    PyObject *load = core_function(st, FN_LOAD_CALL);
    if (parts == NULL || load == NULL)
        goto done;
    const char *pickle = (const char *)chunk->message.data + sizeof head;
    PyObject *first = PyBytes_FromStringAndSize(pickle, (Py_ssize_t)head.size);
    if (first == NULL)
        goto done;
    PyList_SET_ITEM(parts, 0, first);
    buffers b = buffers_of_chunk(st, at, chunk);
    for (size_t i = 0; i < b.n; i++) {
        PyObject *part = b.take(&b, i);
        if (part == NULL)
            goto done;
        PyList_SET_ITEM(parts, (Py_ssize_t)i + 1, part);
    }
    name = serializer_name(head.serializer);
    if (name == NULL)
        goto done;
    given = PyObject_CallFunctionObjArgs(load, parts, name, NULL);
    if (given == NULL)
        goto done;
    tuple = PySequence_Tuple(given);
    if (tuple == NULL)
        goto done;
    if (PyTuple_GET_SIZE(tuple) != 3) {
        PyErr_SetString(PyExc_TypeError, "load_call() must return a function and its init and exit functions");
        goto done;
    }
    call = call_make(st, PyTuple_GET_ITEM(tuple, 0), PyTuple_GET_ITEM(tuple, 1), PyTuple_GET_ITEM(tuple, 2));
    if (call != NULL) {
        call->id = head.id;
        call->serializer = head.serializer;
        call->pass_worker_id = head.flags & PASS_WORKER_ID;
        call->pass_shared = head.flags & PASS_SHARED;
        call->use_state = head.flags & USE_STATE;
        call->unpack = head.flags & UNPACK;
    }

done:
    Py_XDECREF(tuple);
    Py_XDECREF(given);
    Py_XDECREF(name);
    Py_XDECREF(parts);
    return call;

broken:
    PyErr_SetString(PyExc_ValueError, "a call makes no sense: it is cut off or overwritten");
    return NULL;
}

/* ---- Unpacking -------------------------------------------------------------------------------------------------- */

bool call_is_array(PyObject *v)
{
    PyObject *mro = Py_TYPE(v)->tp_mro;
    if (mro == NULL)
        return false;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(mro); i++) {
        PyObject *base = PyTuple_GET_ITEM(mro, i);
        if (PyType_Check(base) && strcmp(((PyTypeObject *)base)->tp_name, "numpy.ndarray") == 0)
            return true;
    }
    return false;
}

int call_unpack(CallObject *call, PyObject *item, bool explicit_arguments, PyObject **args, PyObject **kwargs)
{
    *args = *kwargs = NULL;
    if (explicit_arguments) {
        if (!PyTuple_Check(item) || PyTuple_GET_SIZE(item) != 2) {
            PyErr_SetString(PyExc_ValueError, "arguments make no sense: they are cut off or overwritten");
            return -1;
        }
        *args = PySequence_Tuple(PyTuple_GET_ITEM(item, 0));
        if (*args == NULL)
            return -1;
        PyObject *named = PyTuple_GET_ITEM(item, 1);
        if (named != Py_None && PyDict_Check(named)) {
            Py_INCREF(named);
            *kwargs = named;
        }
        return 0;
    }
    if (call->unpack) {
        if (PyDict_Check(item)) {
            *args = PyTuple_New(0);
            if (*args == NULL)
                return -1;
            Py_INCREF(item);
            *kwargs = item;
            return 0;
        }
        if (PyTuple_CheckExact(item)) {
            Py_INCREF(item);
            *args = item;
            return 0;
        }
        if (Py_TYPE(item)->tp_iter != NULL && !PyUnicode_Check(item) && !PyBytes_Check(item) && !call_is_array(item)) {
            *args = PySequence_Tuple(item);
            return *args == NULL ? -1 : 0;
        }
    }
    *args = PyTuple_Pack(1, item);
    return *args == NULL ? -1 : 0;
}
