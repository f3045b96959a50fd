/* SPDX-License-Identifier: MIT
 *
 * A Pool is made: parameters, what its workers are told at their start, and the engine's pool.
 */
#include "codec.h"

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

char **argv_of(PyObject *given, PyObject **keep)
{
    PyObject *list = PySequence_List(given);
    if (list == NULL)
        return NULL;
    Py_ssize_t n = PyList_GET_SIZE(list);
    char **argv = PyMem_Calloc((size_t)n + 1, sizeof *argv);
    if (argv == NULL) {
        PyErr_NoMemory();
        goto fail;
    }
    for (Py_ssize_t i = 0; i < n; i++) {
        PyObject *bytes = NULL;
        if (!PyUnicode_FSConverter(PyList_GET_ITEM(list, i), &bytes))
            goto fail;
        if (PyList_SetItem(list, i, bytes) < 0) /* takes the reference */
            goto fail;
        argv[i] = PyBytes_AS_STRING(bytes);
    }
    *keep = list;
    return argv;

fail:
    PyMem_Free(argv);
    Py_DECREF(list);
    return NULL;
}

int pipe_of(PyObject *given, tercio_bytes pipe[2])
{
    for (Py_ssize_t i = 0; i < 2; i++) {
        PyObject *piece = PyTuple_Check(given) && PyTuple_GET_SIZE(given) == 2 ? PyTuple_GET_ITEM(given, i) : NULL;
        if (piece == NULL || !PyBytes_Check(piece)) {
            PyErr_SetString(PyExc_TypeError, "pipe must be a tuple of two bytes");
            return -1;
        }
        pipe[i] = (tercio_bytes){PyBytes_AS_STRING(piece), (size_t)PyBytes_GET_SIZE(piece)};
    }
    return 0;
}

static PyObject *cpu_sets(PyObject *given, unsigned n_workers)
{
    PyObject *outer = PySequence_List(given);
    if (outer == NULL)
        return NULL;
    PyObject *result = NULL;
    if ((size_t)PyList_GET_SIZE(outer) != n_workers) {
        PyErr_SetString(PyExc_ValueError, "cpu_ids must have an entry for each worker");
        goto done;
    }
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(outer); i++) {
        PyObject *inner = PySequence_Tuple(PyList_GET_ITEM(outer, i));
        if (inner == NULL || PyList_SetItem(outer, i, inner) < 0)
            goto done;
    }
    result = PyList_AsTuple(outer);

done:
    Py_DECREF(outer);
    return result;
}

void pool_set_main(const PoolObject *self)
{
    PyObject *modules = PySys_GetObject("modules"); /* borrowed */
    if (modules == NULL || PyDict_SetItemString(modules, "__mp_main__", self->main) < 0) {
        PyErr_Clear(); /* what is looked up there isn't found, and says so */
        return;
    }
    Py_INCREF(self->main);
    Py_XSETREF(self->env.st->main, self->main);
}

/* Notes what the parent has put there for the workers that are about to start. */
static void note_main(PoolObject *self)
{
    PyObject *modules = PySys_GetObject("modules"); /* borrowed */
    self->main = modules == NULL || !PyDict_Check(modules) ? NULL : PyDict_GetItemString(modules, "__mp_main__");
    Py_XINCREF(self->main);
    if (self->main != NULL)
        pool_set_main(self);
}

/* A forkserver answers when it has imported what it shall, and that may take long: signals are let in meanwhile, and held
 * back before, as in pool_wait. Returns: as tercio_open; TERCIO_EINTERRUPTED with an exception. */
static int open_without_gil(PoolObject *self, tercio_options *options)
{
    sigset_t all, before;
    int error;
    do {
        bool waits = self->method == TERCIO_FORKSERVER;
        if (waits) {
            sigfillset(&all);
            pthread_sigmask(SIG_BLOCK, &all, &before);
            options->sigmask = &before;
        }
        error = PyErr_CheckSignals() < 0 ? TERCIO_EINTERRUPTED : 0;
        if (error == 0) {
            PyThreadState *ts = attach_let_go();
            error = tercio_open(&self->engine, options);
            attach_again(ts);
        }
        if (waits)
            pthread_sigmask(SIG_SETMASK, &before, NULL);
        options->sigmask = NULL;
        if (error == TERCIO_EINTERRUPTED && (PyErr_Occurred() || PyErr_CheckSignals() < 0))
            return error;
    } while (error == TERCIO_EINTERRUPTED);
    return error;
}

/* The numbers of a sequence, for PyMem_Free. Returns: NULL with an exception. */
static int *numbers_of(PyObject *given, size_t *n)
{
    PyObject *tuple = PySequence_Tuple(given);
    if (tuple == NULL)
        return NULL;
    *n = (size_t)PyTuple_GET_SIZE(tuple);
    int *numbers = PyMem_Calloc(*n + 1, sizeof *numbers);
    if (numbers == NULL)
        PyErr_NoMemory();
    for (size_t i = 0; numbers != NULL && i < *n; i++) {
        numbers[i] = (int)PyLong_AsLong(PyTuple_GET_ITEM(tuple, (Py_ssize_t)i));
        if (numbers[i] == -1 && PyErr_Occurred()) {
            PyMem_Free(numbers);
            numbers = NULL;
        }
    }
    Py_DECREF(tuple);
    return numbers;
}

static int open_engine(PoolObject *self, PyObject *argv_given, PyObject *parts_given, PyObject *descriptors_given)
{
    int *descriptors = NULL;
    PyObject *parts = NULL;
    preparation prepared = {0};
    int done = -1;
    core_state *st = self->env.st;
    tercio_options options = {
        .size = sizeof options,
        .method = self->method,
        .n_workers = self->n_workers,
        .grace = self->grace,
        .init_timeout = self->init_timeout,
        .exit_timeout = self->exit_timeout,
        .observe = self->observe,
        .max_pending = self->max_pending,
        .threads_at_fork = true,                /* the face warns; Python programs can't know all their threads */
        .stack_size = PyThread_get_stacksize(), /* what threading.stack_size() has set */
        .host = &core_host,
        .host_user = &self->env,
    };
    if (self->method == TERCIO_SPAWN || self->method == TERCIO_FORKSERVER) {
        self->argv = argv_of(argv_given, &self->argv_bytes);
        if (self->argv == NULL)
            goto done;
        options.worker_argv = self->argv;
        options.worker_pipe = self->pipe_bytes == NULL ? NULL : self->pipe;
        note_main(self);
        parts = PySequence_Tuple(parts_given);
        if (parts == NULL)
            goto done;
        if (preparation_make(&prepared, self, parts) < 0)
            goto done;
        options.prepare = prepared.pieces;
        options.n_prepare = prepared.n_pieces;
        descriptors = numbers_of(descriptors_given, &options.n_descriptors);
        if (descriptors == NULL)
            goto done;
        options.descriptors = descriptors;
    }
    if (self->server != NULL) {
        options.server = ((ServerObject *)self->server)->server;
        if (options.server == NULL) {
            PyErr_SetString(PyExc_RuntimeError, "the forkserver was closed");
            goto done;
        }
    }
    int error;
    if (self->method == TERCIO_FORK) { /* the hooks around the fork are this thread's, with the GIL */
        if (worker_prepare_fork(st) < 0)
            goto done;
        error = tercio_open(&self->engine, &options);
    } else {
        error = open_without_gil(self, &options);
        if (error == TERCIO_EINTERRUPTED)
            goto done;
    }
    self->opened = true;
    if (error < 0) {
        self->engine = NULL;
        error_raise(st, NULL, error);
        goto done;
    }
    self->n_workers = (unsigned)tercio_worker_pids(self->engine, NULL, 0);
    if (PyErr_CheckSignals() < 0) { /* what came while workers were started would come before anybody has the pool */
        pool_close(self);
        goto done;
    }
    done = 0;

done:
    Py_XDECREF(parts);
    PyMem_Free(descriptors);
    preparation_clear(&prepared);
    return done;
}

PyObject *pool_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {
        "n_workers", "method",      "first_call", "shared_objects", "preparation",  "argv",    "server",
        "cpu_ids",   "daemon",      "grace",      "init_timeout",   "exit_timeout", "observe", "max_pending",
        "pipe",      "descriptors", NULL};
    core_state *st = core_of_type(type);
    const char *method;
    unsigned n_workers;
    PyObject *first_call = Py_None, *shared = Py_None, *prepared = NULL, *argv = NULL, *server = Py_None;
    PyObject *cpu_ids = Py_None, *pipe = Py_None, *descriptors = NULL;
    int daemon = 1, observe = 0;
    Py_ssize_t max_pending = 0;
    double grace = 1.0, init_timeout = 0, exit_timeout = 0;
    PoolObject *self = NULL;
    PyObject *empty = PyTuple_New(0);
    if (empty == NULL)
        return NULL;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "Is|$OOOOOOpdddpnOO:Pool", names, &n_workers, &method, &first_call,
                                     &shared, &prepared, &argv, &server, &cpu_ids, &daemon, &grace, &init_timeout,
                                     &exit_timeout, &observe, &max_pending, &pipe, &descriptors))
        goto fail;
    if (max_pending < 0) {
        PyErr_SetString(PyExc_ValueError, "max_pending must not be negative");
        goto fail;
    }
    if ((first_call != Py_None && !PyObject_TypeCheck(first_call, st->call_type)) ||
        (server != Py_None && !PyObject_TypeCheck(server, st->server_type))) {
        PyErr_SetString(PyExc_TypeError, "first_call must be a Call, and server a Server");
        goto fail;
    }
    self = (PoolObject *)type->tp_alloc(type, 0);
    if (self == NULL)
        goto fail;
    self->env = (host_env){.st = st, .interp = PyInterpreterState_Get(), .pool = self};
    pthread_sigmask(SIG_SETMASK, NULL, &self->env.signals);
    self->pid = (long)getpid();
    self->generation = tercio_fork_generation();
    self->n_workers = n_workers;
    self->daemon = daemon != 0;
    self->observe = observe != 0;
    self->max_pending = (size_t)max_pending;
    self->grace = grace;
    self->init_timeout = init_timeout;
    self->exit_timeout = exit_timeout;
    self->free_slot = UINT32_MAX;
    pthread_mutex_init(&self->gate, NULL);
    pthread_cond_init(&self->gate_open, NULL);
    int error = tercio_method_parse(method, &self->method);
    if (error < 0) {
        PyErr_Format(PyExc_ValueError, "start method %s: %s", method, tercio_error_text(error));
        goto fail;
    }
    if (first_call != Py_None) {
        Py_INCREF(first_call);
        self->first_call = (CallObject *)first_call;
    }
    if (shared != Py_None) {
        Py_INCREF(shared);
        self->shared = shared;
    }
    if (server != Py_None) {
        Py_INCREF(server);
        self->server = server;
    }
    if (pipe != Py_None) {
        if (pipe_of(pipe, self->pipe) < 0)
            goto fail;
        Py_INCREF(pipe);
        self->pipe_bytes = pipe;
    }
    self->exit_results = PyList_New(0);
    if (self->exit_results == NULL)
        goto fail;
    if (cpu_ids != Py_None && (self->cpu_ids = cpu_sets(cpu_ids, n_workers)) == NULL)
        goto fail;
    if (open_engine(self, argv == NULL ? empty : argv, prepared == NULL ? empty : prepared,
                    descriptors == NULL ? empty : descriptors) < 0)
        goto fail;
    Py_DECREF(empty);
    return (PyObject *)self;

fail:
    Py_DECREF(empty);
    Py_XDECREF((PyObject *)self);
    return NULL;
}
