/* SPDX-License-Identifier: MIT
 *
 * From errors of the engine and of tasks to Python exceptions, in one place. What users see is built by the
 * package's own functions (tercio._errors); here is only who calls which with what.
 */
#include <errno.h>
#include <signal.h>

#include "codec.h"

static const struct {
    const char *module, *name;
} functions[FN_COUNT] = {
    [FN_ERROR_DUMP] = {"tercio._errors", "dump"},
    [FN_ERROR_LOAD] = {"tercio._errors", "load"},
    [FN_ERROR_NOT_STARTED] = {"tercio._errors", "not_started"},
    [FN_ERROR_DIED] = {"tercio._errors", "died"},
    [FN_ERROR_TIMED_OUT] = {"tercio._errors", "timed_out"},
    [FN_ERROR_NOT_PICKLABLE] = {"tercio._errors", "not_picklable"},
    [FN_ERROR_TIMEOUT] = {"tercio._errors", "timeout_class"},
    [FN_ERROR_DRESS] = {"tercio._errors", "dress"},
    [FN_DUMP_CALL] = {"tercio._serialize", "dump_call"},
    [FN_LOAD_CALL] = {"tercio._names", "load_call"},
    [FN_WORKER_ENTER] = {"tercio._worker", "enter"},
    [FN_WORKER_TRACE] = {"tercio._ending", "trace_thread"},
    [FN_WORKER_LIVE] = {"tercio._ending", "live"},
    [FN_WORKER_LEAVE] = {"tercio._ending", "leave"},
    [FN_LET_GO_OF_IMPORTS] = {"tercio._worker", "let_go_of_imports"},
    [FN_PICKLE_DUMPS] = {"tercio._pickling", "dumps"},
    [FN_PICKLE_LOADS] = {"tercio._pickling", "loads"},
    [FN_DILL_DUMPS] = {"dill", "dumps"},
    [FN_DILL_LOADS] = {"dill", "loads"},
    [FN_CLOUDPICKLE_DUMPS] = {"cloudpickle", "dumps"},
    [FN_CLOUDPICKLE_LOADS] = {"cloudpickle", "loads"},
    [FN_GC_FREEZE] = {"gc", "freeze"},
    [FN_SIGNAL] = {"_signal", "signal"},
    [FN_GETSIGNAL] = {"_signal", "getsignal"},
    [FN_AT_FORK] = {"posix", "register_at_fork"},
    [FN_SET_WAKEUP_FD] = {"_signal", "set_wakeup_fd"},
    [FN_SET_AFFINITY] = {"posix", "sched_setaffinity"},
    [FN_THREAD_ENTER] = {"tercio._threads", "enter"},
    [FN_THREAD_LEAVE] = {"tercio._threads", "leave"},
    [FN_CANCELLED_ERROR] = {"concurrent.futures", "CancelledError"},
    [FN_ARGUMENTS_TEXT] = {"tercio._errors", "arguments_text"},
    [FN_RUNNING_LOOP] = {"asyncio", "get_running_loop"},
    [FN_STAY_AT_END] = {"tercio._shutdown", "stay_at_end"},
};

PyObject *core_function(core_state *st, int which)
{
    if (st->functions[which] != NULL)
        return st->functions[which];
    PyObject *module = PyImport_ImportModule(functions[which].module);
    if (module == NULL)
        return NULL;
    PyObject *function = PyObject_GetAttrString(module, functions[which].name);
    Py_DECREF(module);
    if (function == NULL)
        return NULL;
    Py_XSETREF(st->functions[which], function);
    return function;
}

PyObject *core_take_exception(void)
{
#if PY_VERSION_HEX >= 0x030C0000
    return PyErr_GetRaisedException();
#else
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    if (type == NULL)
        return NULL;
    PyErr_NormalizeException(&type, &value, &traceback);
    if (traceback != NULL)
        PyException_SetTraceback(value, traceback);
    Py_DECREF(type);
    Py_XDECREF(traceback);
    return value;
#endif
}

PyObject *core_no_stop(PyObject *exc)
{
    if (!PyErr_GivenExceptionMatches(exc, PyExc_StopIteration)) {
        Py_INCREF(exc);
        return exc;
    }
    PyObject *error = PyObject_CallFunction(PyExc_RuntimeError, "s", "a task raised StopIteration");
    if (error != NULL) {
        Py_INCREF(exc);
        PyException_SetCause(error, exc);
    }
    return error;
}

void core_raise(PyObject *exc)
{
    PyErr_SetObject((PyObject *)Py_TYPE(exc), exc);
}

void error_unraisable(PyObject *where)
{
    PyErr_WriteUnraisable(where);
}

/* An instance of a built-in exception, for where one is handed on instead of raised. */
static PyObject *make(PyObject *type, const char *text)
{
    return PyObject_CallFunction(type, "s", text);
}

/* Calls a function of the package; what it raises instead of returning is as good an exception as any. */
static PyObject *exception_from(PyObject *returned)
{
    if (returned == NULL)
        return core_take_exception();
    if (PyExceptionInstance_Check(returned))
        return returned;
    Py_DECREF(returned);
    return make(PyExc_RuntimeError, "the error could not be rebuilt");
}

/* A fresh process that ended before it was a worker: the exception that says so. */
static PyObject *not_started(core_state *st, const char *text)
{
    PyObject *function = core_function(st, FN_ERROR_NOT_STARTED);
    return exception_from(function == NULL ? NULL : PyObject_CallFunction(function, "s", text));
}

/* ---- The pool's own failures ------------------------------------------------------------------------------------ */

/* The failure that ended the pool, if one did, explains more than the number that its calls answer with since. */
static bool raise_failure(PoolObject *pool)
{
    tercio_result r = {.size = sizeof r};
    if (pool == NULL || pool->engine == NULL || tercio_failure(pool->engine, &r) != 1)
        return false;
    PyObject *exc = error_of_result(pool, NULL, NULL, &r, NULL, false, 0);
    if (exc != NULL) {
        core_raise(exc);
        Py_DECREF(exc);
    }
    return true;
}

PyObject *error_raise(core_state *st, PoolObject *pool, int error)
{
    int saved = errno;
    if (error != TERCIO_ECLOSED && error != TERCIO_EFORKED && raise_failure(pool))
        return NULL;
    switch (error) {
    case TERCIO_ENOMEM:
        return PyErr_NoMemory();
    case TERCIO_ESYSTEM:
        errno = saved;
        return PyErr_SetFromErrno(PyExc_OSError);
    case TERCIO_EINVAL:
    case TERCIO_ETOOBIG:
        PyErr_SetString(PyExc_ValueError, tercio_error_text(error));
        return NULL;
    case TERCIO_EFORKED:
        PyErr_SetString(PyExc_RuntimeError, "this pool belongs to the process that forked this one, and can't be "
                                            "used here: make a new one");
        return NULL;
    case TERCIO_ECLOSED:
        attach_stay_at_end(st);
        PyErr_SetString(PyExc_RuntimeError, "Pool was terminated");
        return NULL;
    case TERCIO_ESTART: {
        PyObject *exc = not_started(st, tercio_error_text(error));
        if (exc != NULL) {
            core_raise(exc);
            Py_DECREF(exc);
        }
        return NULL;
    }
    default:
        break;
    }
    PyErr_Format(PyExc_RuntimeError, "%s (%s)", tercio_error_text(error), tercio_error_name(error));
    return NULL;
}

/* ---- Results that are failures ---------------------------------------------------------------------------------- */

/* Keyword arguments for tercio._errors.died; args and kwargs are what the task was called with, as far as known. */
static PyObject *died(core_state *st, CallObject *call, const tercio_result *r, PyObject *item, bool explicit_arguments)
{
    PyObject *args = NULL, *kwargs = NULL, *named = NULL, *none = NULL, *exc = NULL;
    PyObject *function = core_function(st, FN_ERROR_DIED);
    if (function == NULL)
        return core_take_exception();
    if (item != NULL && call != NULL && call_unpack(call, item, explicit_arguments, &args, &kwargs) < 0)
        PyErr_Clear(); /* arguments are a courtesy */
    named = Py_BuildValue("{s:I,s:i,s:i,s:i,s:K,s:O,s:O,s:O,s:O}", "worker_id", r->worker, "pid", r->pid, "signal",
                          r->signal, "exit_code", r->code, "peak_rss", (unsigned long long)r->peak_rss, "out_of_memory",
                          r->out_of_memory ? Py_True : Py_False, "args", args == NULL ? Py_None : args, "kwargs",
                          kwargs == NULL ? Py_None : kwargs, "func", call == NULL ? Py_None : call->func);
    none = PyTuple_New(0);
    if (named != NULL && none != NULL)
        exc = exception_from(PyObject_Call(function, none, named));
    else
        exc = core_take_exception();
    Py_XDECREF(none);
    Py_XDECREF(named);
    Py_XDECREF(args);
    Py_XDECREF(kwargs);
    return exc;
}

static PyObject *timed_out(PoolObject *pool, const tercio_result *r, double timeout)
{
    PyObject *function = core_function(pool->env.st, FN_ERROR_TIMED_OUT);
    if (function == NULL)
        return core_take_exception();
    const char *kind = "task";
    if (r->kind == TERCIO_KIND_INIT) {
        kind = "worker_init";
        timeout = pool->init_timeout;
    } else if (r->kind == TERCIO_KIND_EXIT) {
        kind = "worker_exit";
        timeout = pool->exit_timeout;
    }
    return exception_from(PyObject_CallFunction(function, "Isd", r->worker, kind, timeout));
}

/* What a task, or a worker on its way in or out, said about its failure. The first byte tells how. */
static PyObject *said(PoolObject *pool, tercio_run *run, const tercio_result *r)
{
    core_state *st = pool->env.st;
    answer_bytes a;
    PyObject *exc = NULL;
    if (answer_open(&a, st, run, r) < 0)
        return core_take_exception();
    const char *data = a.head;
    if (a.size > 1 && data[0] == 'd') {
        PyObject *load = core_function(st, FN_ERROR_LOAD);
        pool_mean_main(pool);
        exc =
            exception_from(load == NULL ? NULL : PyObject_CallFunction(load, "y#", data + 1, (Py_ssize_t)(a.size - 1)));
    } else if (a.size > 1 && data[0] == 't') {
        PyObject *text = PyUnicode_DecodeUTF8(data + 1, (Py_ssize_t)(a.size - 1), "replace");
        exc = exception_from(text == NULL ? NULL : PyObject_CallOneArg(PyExc_RuntimeError, text));
        Py_XDECREF(text);
    } else {
        const char *text = r->message[0] != '\0' ? r->message : tercio_error_text(r->status);
        exc = r->status == TERCIO_ESTART ? not_started(st, text) : make(PyExc_RuntimeError, text);
    }
    answer_close(&a);
    return exc;
}

static PyObject *cancelled(core_state *st)
{
    PyObject *type = core_function(st, FN_CANCELLED_ERROR);
    if (type == NULL)
        return core_take_exception();
    return exception_from(PyObject_CallFunction(type, "s", "the task was cancelled"));
}

PyObject *error_of_result(PoolObject *pool, tercio_run *run, CallObject *call, const tercio_result *r, PyObject *item,
                          bool explicit_arguments, double timeout)
{
    core_state *st = pool->env.st;
    switch (r->status) {
    case TERCIO_EFAILED: {
        PyObject *exc = worker_handed_over(pool, r);
        if (exc == NULL)
            return said(pool, run, r);
        if (PyExceptionInstance_Check(exc))
            return exc;
        Py_DECREF(exc);
        return make(PyExc_RuntimeError, "the task failed, and memory was out when it should have said why");
    }
    case TERCIO_EDIED:
        return died(st, call, r, item, explicit_arguments);
    case TERCIO_ETIMEDOUT:
        return timed_out(pool, r, timeout);
    case TERCIO_ECANCELED:
        return cancelled(st);
    case TERCIO_ECLOSED:
        return make(PyExc_RuntimeError, "Pool was terminated");
    case TERCIO_ESYSTEM:
        return exception_from(PyObject_CallFunction(PyExc_OSError, "is", r->code, r->message));
    case TERCIO_ENOMEM:
        return make(PyExc_MemoryError, "no memory for the task's arguments or result");
    default:
        return said(pool, run, r);
    }
}

/* ---- What can't be pickled -------------------------------------------------------------------------------------- */

PyObject *error_not_picklable(core_state *st, const char *what, CallObject *call, uint64_t index)
{
    PyObject *original = core_take_exception();
    if (original == NULL)
        return NULL;
    /* Interrupts and the like are nobody's failure to pickle. */
    if (!PyObject_IsInstance(original, PyExc_Exception) || PyObject_IsInstance(original, PyExc_MemoryError))
        return original;
    PyObject *function = core_function(st, FN_ERROR_NOT_PICKLABLE);
    PyObject *exc = function == NULL ? NULL
                                     : PyObject_CallFunction(function, "sOKO", what, call->func,
                                                             (unsigned long long)index, original);
    exc = exception_from(exc);
    Py_DECREF(original);
    return exc;
}
