/* SPDX-License-Identifier: MIT
 *
 * Memory that a large part of a message arrived in, as a Python buffer: writable, seen by this process alone, and
 * given back when the last reader lets go. It may outlive the run and the pool; the engine counts its file.
 */
#include "core.h"

typedef struct {
    PyObject_HEAD
    tercio_view view;
} BlockObject;

PyObject *block_new(core_state *st, tercio_view *view)
{
    BlockObject *self = (BlockObject *)st->block_type->tp_alloc(st->block_type, 0);
    if (self == NULL) {
        tercio_give(view);
        return NULL;
    }
    self->view = *view;
    return (PyObject *)self;
}

static int block_getbuffer(PyObject *self, Py_buffer *buffer, int flags)
{
    tercio_view *view = &((BlockObject *)self)->view;
    return PyBuffer_FillInfo(buffer, self, view->data, (Py_ssize_t)view->size, 0, flags);
}

static Py_ssize_t block_length(PyObject *self)
{
    return (Py_ssize_t)((BlockObject *)self)->view.size;
}

static void block_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    tercio_give(&((BlockObject *)self)->view);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyType_Slot block_slots[] = {
    {Py_tp_new, core_no_new},
    {Py_tp_dealloc, block_dealloc},
    {Py_sq_length, block_length},
    {Py_bf_getbuffer, block_getbuffer},
    {0, NULL},
};
PyType_Spec block_spec = {
    .name = "tercio._core._Block",
    .basicsize = sizeof(BlockObject),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = block_slots,
};
