/* SPDX-License-Identifier: MIT
 *
 * AsyncResult: what users hold of an applied task. Waiting and taking results out is py_settle.c's.
 */
#include "apply.h"

static PyObject *async_ready(PyObject *o, PyObject *Py_UNUSED(none))
{
    apply_look((AsyncObject *)o);
    return PyBool_FromLong(((AsyncObject *)o)->ready);
}

static PyObject *async_successful(PyObject *o, PyObject *Py_UNUSED(none))
{
    AsyncObject *a = (AsyncObject *)o;
    apply_look(a);
    if (!a->ready)
        return PyErr_Format(PyExc_ValueError, "%R is not ready", o);
    return PyBool_FromLong(!a->failed);
}

/* Returns 1 ready; 0 the time is up; -1 with an exception. */
static int async_await(AsyncObject *a, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"timeout", NULL};
    PyObject *given = Py_None;
    double timeout = -1;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O", names, &given))
        return -1;
    if (given != Py_None) {
        timeout = PyFloat_AsDouble(given);
        if (timeout == -1 && PyErr_Occurred())
            return -1;
        if (!(timeout > 0))
            timeout = 0;
    }
    if (a->ready)
        return 1;
    int result = a->at == NULL ? 0 : apply_wait(a->pool, a->at, a, timeout, false);
    if (a->ready) {
        if (result == WAIT_RAISED && PyErr_ExceptionMatches(PyExc_RuntimeError))
            PyErr_Clear(); /* the pool went, but the answer is known */
        else if (result == WAIT_RAISED)
            return -1;
        return 1;
    }
    return result == TERCIO_EAGAIN ? 0 : -1;
}

static PyObject *async_wait(PyObject *o, PyObject *args, PyObject *kwargs)
{
    if (async_await((AsyncObject *)o, args, kwargs) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *async_get(PyObject *o, PyObject *args, PyObject *kwargs)
{
    AsyncObject *a = (AsyncObject *)o;
    core_state *st = core_of_type(Py_TYPE(o));
    int ready = async_await(a, args, kwargs);
    if (ready > 0)
        return apply_outcome(a);
    if (ready == 0) {
        PyObject *type = core_function(st, FN_ERROR_TIMEOUT);
        if (type != NULL && !PyExceptionClass_Check(type)) {
            PyObject *made = PyObject_CallNoArgs(type);
            if (made != NULL && PyExceptionClass_Check(made))
                PyErr_SetString(made, "the result is not there yet");
            Py_XDECREF(made);
        } else if (type != NULL) {
            PyErr_SetString(type, "the result is not there yet");
        }
    }
    return NULL;
}

/* Returns: whether the task is stopped by it; false when it is done. */
static bool cancel(AsyncObject *a)
{
    apply_look(a);
    if (a->ready || a->at == NULL || a->at->run == NULL || pool_is_foreign(a->pool))
        return false;
    int error = tercio_cancel(a->at->run, a->index);
    if (error == 0 && a->pool->method == TERCIO_THREADING)
        worker_interrupt_threads(a->pool->env.st, a->pool, a->at->call, a->index);
    return error == 0;
}

static PyObject *async_cancel(PyObject *o, PyObject *Py_UNUSED(none))
{
    return PyBool_FromLong(cancel((AsyncObject *)o));
}

/* ---- Futures that await it --------------------------------------------------------------------------------------- */

/* Called in a loop's thread with a future that awaited `self` and is done. An awaiting task that is cancelled cancels the
 * future, and that is to cancel what it stands for. */
static PyObject *future_done(PyObject *self, PyObject *future)
{
    PyObject *answer = PyObject_CallMethod(future, "cancelled", NULL);
    int cancelled = answer == NULL ? -1 : PyObject_IsTrue(answer);
    Py_XDECREF(answer);
    if (cancelled < 0)
        return NULL;
    if (cancelled)
        (void)cancel((AsyncObject *)self);
    Py_RETURN_NONE;
}

static PyMethodDef future_done_method = {"_future_done", future_done, METH_O, NULL};

static int watch_future(AsyncObject *a, PyObject *future)
{
    PyObject *function = PyCFunction_New(&future_done_method, (PyObject *)a);
    PyObject *done = function == NULL ? NULL : PyObject_CallMethod(future, "add_done_callback", "O", function);
    Py_XDECREF(function);
    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}

/* Called in a loop's thread with a future that awaits `self`. */
static PyObject *settle_future(PyObject *self, PyObject *args)
{
    AsyncObject *a = (AsyncObject *)self;
    PyObject *future;
    if (!PyArg_ParseTuple(args, "O:_settle", &future))
        return NULL;
    PyObject *done = PyObject_CallMethod(future, "done", NULL);
    int is_done = done == NULL ? -1 : PyObject_IsTrue(done);
    Py_XDECREF(done);
    if (is_done < 0)
        return NULL;
    if (is_done)
        Py_RETURN_NONE;
    if (!a->failed)
        return PyObject_CallMethod(future, "set_result", "O", a->value);
    attach_stay_at_end(core_of_type(Py_TYPE(self)));
    PyObject *error = core_no_stop(a->value);
    PyObject *told = error == NULL ? NULL : PyObject_CallMethod(future, "set_exception", "O", error);
    Py_XDECREF(error);
    return told;
}

static PyMethodDef settle_method = {"_settle", settle_future, METH_VARARGS, NULL};

/* Asks the future's loop to settle it, in its own thread. A loop that is closed by now wants nothing. */
void async_tell_future(AsyncObject *a, PyObject *pair)
{
    PyObject *settle = PyCFunction_New(&settle_method, (PyObject *)a);
    PyObject *done = settle == NULL ? NULL
                                    : PyObject_CallMethod(PyTuple_GET_ITEM(pair, 0), "call_soon_threadsafe", "OO",
                                                          settle, PyTuple_GET_ITEM(pair, 1));
    PyErr_Clear();
    Py_XDECREF(done);
    Py_XDECREF(settle);
}

static PyObject *async_await_method(PyObject *o)
{
    AsyncObject *a = (AsyncObject *)o;
    core_state *st = core_of_type(Py_TYPE(o));
    PyObject *loop = NULL, *future = NULL, *pair = NULL, *iterator = NULL;
    PyObject *function = core_function(st, FN_RUNNING_LOOP);
    if (function == NULL || (loop = PyObject_CallNoArgs(function)) == NULL)
        return NULL;
    future = PyObject_CallMethod(loop, "create_future", NULL);
    if (future == NULL)
        goto done;
    pair = PyTuple_Pack(2, loop, future);
    if (pair == NULL)
        goto done;
    apply_look(a);
    if (a->ready) {
        async_tell_future(a, pair);
    } else {
        if (a->futures == NULL && (a->futures = PyList_New(0)) == NULL)
            goto done;
        if (watch_future(a, future) < 0 || PyList_Append(a->futures, pair) < 0)
            goto done;
    }
    iterator = PyObject_CallMethod(future, "__await__", NULL);

done:
    Py_XDECREF(pair);
    Py_XDECREF(future);
    Py_XDECREF(loop);
    return iterator;
}

static int async_traverse(PyObject *o, visitproc visit, void *arg)
{
    AsyncObject *a = (AsyncObject *)o;
    Py_VISIT(Py_TYPE(o));
    Py_VISIT(a->pool);
    Py_VISIT(a->value);
    Py_VISIT(a->callback);
    Py_VISIT(a->error_callback);
    Py_VISIT(a->argument);
    Py_VISIT(a->futures);
    return 0;
}

static int async_clear(PyObject *o)
{
    AsyncObject *a = (AsyncObject *)o;
    a->at = NULL;
    Py_CLEAR(a->value);
    Py_CLEAR(a->callback);
    Py_CLEAR(a->error_callback);
    Py_CLEAR(a->argument);
    Py_CLEAR(a->futures);
    Py_CLEAR(a->pool);
    return 0;
}

static void async_dealloc(PyObject *o)
{
    PyTypeObject *type = Py_TYPE(o);
    PyObject_GC_UnTrack(o);
    async_clear(o);
    type->tp_free(o);
    Py_DECREF(type);
}

static PyMethodDef async_methods[] = {
    {"__class_getitem__", Py_GenericAlias, METH_O | METH_CLASS, "AsyncResult[int], for type checkers."},
    {"ready", async_ready, METH_NOARGS, "Whether the task is done."},
    {"successful", async_successful, METH_NOARGS,
     "Whether it returned rather than raised; ValueError while not ready."},
    {"wait", (PyCFunction)(void (*)(void))async_wait, METH_VARARGS | METH_KEYWORDS, "Waits until it is ready."},
    {"get", (PyCFunction)(void (*)(void))async_get, METH_VARARGS | METH_KEYWORDS, "Its result, or raises its error."},
    {"cancel", async_cancel, METH_NOARGS, "Stops the task, queued or running; False when it is done."},
    {NULL, NULL, 0, NULL},
};
static PyType_Slot async_slots[] = {
    {Py_tp_new, core_no_new},         {Py_tp_doc, "A task that was applied, and its result."},
    {Py_tp_traverse, async_traverse}, {Py_tp_clear, async_clear},
    {Py_tp_dealloc, async_dealloc},   {Py_am_await, async_await_method},
    {Py_tp_methods, async_methods},   {0, NULL},
};
PyType_Spec async_spec = {
    .name = "tercio._core.AsyncResult",
    .basicsize = sizeof(AsyncObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = async_slots,
};
