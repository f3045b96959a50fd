/* SPDX-License-Identifier: MIT
 *
 * Server: a forkserver's process, which pools borrow.
 */
#include "core.h"

static PyObject *server_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"argv", "pipe", NULL};
    PyObject *given, *pipe_given = Py_None, *keep = NULL;
    tercio_bytes pipe[2];
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|$O:Server", names, &given, &pipe_given) ||
        (pipe_given != Py_None && pipe_of(pipe_given, pipe) < 0))
        return NULL;
    char **argv = argv_of(given, &keep);
    if (argv == NULL)
        return NULL;
    ServerObject *self = (ServerObject *)type->tp_alloc(type, 0);
    if (self != NULL) {
        int error;
        Py_BEGIN_ALLOW_THREADS
        error = tercio_server_open_piped(&self->server, argv, pipe_given == Py_None ? NULL : pipe);
        Py_END_ALLOW_THREADS
        if (error < 0) {
            self->server = NULL;
            error_raise(core_of_type(type), NULL, error);
            Py_DECREF((PyObject *)self);
            self = NULL;
        } else {
            self->server_pid = tercio_server_pid(self->server);
        }
    }
    PyMem_Free(argv);
    Py_DECREF(keep);
    return (PyObject *)self;
}

static PyObject *server_close(PyObject *o, PyObject *Py_UNUSED(none))
{
    ServerObject *self = (ServerObject *)o;
    tercio_server *server = self->server;
    self->server = NULL;
    if (server != NULL) { /* in a forked child that is no wait */
        Py_BEGIN_ALLOW_THREADS
        tercio_server_close(server);
        Py_END_ALLOW_THREADS
    }
    Py_RETURN_NONE;
}

static void server_dealloc(PyObject *o)
{
    PyTypeObject *type = Py_TYPE(o);
    PyObject *none = server_close(o, NULL);
    Py_DECREF(none);
    type->tp_free(o);
    Py_DECREF(type);
}

static PyObject *server_get_pid(PyObject *o, void *Py_UNUSED(closure))
{
    return PyLong_FromLong(((ServerObject *)o)->server_pid);
}

static PyObject *server_fits(PyObject *o, PyObject *Py_UNUSED(none))
{
    return PyBool_FromLong(tercio_server_fits(((ServerObject *)o)->server));
}

static PyMethodDef server_methods[] = {
    {"fits", server_fits, METH_NOARGS, "Whether it has the users, groups and rights that this process has now."},
    {"close", server_close, METH_NOARGS, "Ends the server, after the pools that use it."},
    {NULL, NULL, 0, NULL},
};
static PyGetSetDef server_getset[] = {
    {"pid", server_get_pid, NULL, "Its process id.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};
static PyType_Slot server_slots[] = {
    {Py_tp_new, server_new},         {Py_tp_doc, "A forkserver process. Pools borrow it."},
    {Py_tp_dealloc, server_dealloc}, {Py_tp_methods, server_methods},
    {Py_tp_getset, server_getset},   {0, NULL},
};
PyType_Spec server_spec = {
    .name = "tercio._core.Server",
    .basicsize = sizeof(ServerObject),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = server_slots,
};
