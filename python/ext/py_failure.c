/* SPDX-License-Identifier: MIT
 *
 * What a worker says when a task fails: an answer whose first byte tells what follows, 'd' what tercio._errors.dump made,
 * 't' a text. Under threading it may be the exception itself: one reference, which is told by its size; texts are made
 * never to have it.
 */
#include "worker.h"

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
                                        kwargs == NULL ? Py_None : kwargs,
                                        w->around != NULL ? w->around
                                        : c == NULL       ? Py_None
                                                          : c->func,
                                        NULL);
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

/* No import runs when this is called, and none for this, as it came with the module that it is in. */
void worker_let_go_of_imports(worker *w)
{
    PyObject *raised = core_take_exception();
    PyObject *function = core_function(w->st, FN_LET_GO_OF_IMPORTS);
    PyObject *done = function == NULL ? NULL : PyObject_CallNoArgs(function);
    if (done == NULL)
        error_unraisable(function);
    Py_XDECREF(done);
    if (raised != NULL) {
        core_raise(raised);
        Py_DECREF(raised);
    }
}

void worker_put_error(worker *w, CallObject *c, PyObject *item, bool explicit_arguments, bool reference_allowed)
{
    if (w->told)
        worker_let_go_of_imports(w);
    PyObject *exc = core_take_exception();
    if (exc == NULL) {
        put_text(&w->answer, "the task failed without an error", 32);
        return;
    }
    if (PyObject_TypeCheck(exc, (PyTypeObject *)w->st->interrupted)) {
        w->interrupted = true; /* the engine knows why and answers itself */
        put_text(&w->answer, "interrupted", 11);
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

int worker_leave_error(worker *w, CallObject *c)
{
    worker_put_error(w, c, NULL, false, false);
    tercio_leave(w->call, TERCIO_EFAILED, encoder_parts(&w->answer), w->answer.n_parts);
    return 1;
}
