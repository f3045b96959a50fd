/* SPDX-License-Identifier: MIT
 *
 * From bytes to values, and where the buffers beside them come from. Nothing that is read is believed.
 */
#include "codec.h"

/* ---- The decoder ------------------------------------------------------------------------------------------------ */

typedef struct {
    core_state *st;
    const unsigned char *at, *end;
    const buffers *buffers;
    size_t first;
    int serializer;
} decoder;

static PyObject *broken(void)
{
    PyErr_SetString(PyExc_ValueError, "a message makes no sense: it is cut off or overwritten");
    return NULL;
}

static inline size_t left(const decoder *d)
{
    return (size_t)(d->end - d->at);
}

static bool get_count(decoder *d, uint32_t *n)
{
    if (left(d) < 4)
        return false;
    memcpy(n, d->at, 4);
    d->at += 4;
    return true;
}

static PyObject *take_buffer(const decoder *d, size_t i)
{
    if (d->buffers == NULL || d->first >= d->buffers->n || i >= d->buffers->n - d->first)
        return broken();
    return d->buffers->take(d->buffers, d->first + i);
}

/* A str or bytes that travelled as a buffer of its own. */
static PyObject *decode_large(const decoder *d, char tag)
{
    PyObject *result = NULL;
    Py_buffer view;
    PyObject *buffer = take_buffer(d, 0);
    if (buffer == NULL)
        return NULL;
    if (PyObject_GetBuffer(buffer, &view, PyBUF_SIMPLE) == 0) {
        result =
            tag == 'S' ? PyUnicode_DecodeUTF8(view.buf, view.len, NULL) : PyBytes_FromStringAndSize(view.buf, view.len);
        PyBuffer_Release(&view);
    }
    Py_DECREF(buffer);
    return result;
}

static PyObject *load_pickle(const decoder *d, PyObject *data, PyObject *beside)
{
    PyObject *loads = core_function(d->st, FN_PICKLE_LOADS + 2 * d->serializer);
    if (loads == NULL)
        return NULL;
    PyObject *stack[3] = {NULL, data, beside};
    return PyObject_Vectorcall(loads, stack + 1, 1 | PY_VECTORCALL_ARGUMENTS_OFFSET,
                               beside == NULL ? NULL : d->st->kw_buffers);
}

static PyObject *decode_pickle(decoder *d, char tag)
{
    uint32_t n = 0;
    if (tag != 'p' && !get_count(d, &n))
        return broken();
    PyObject *result = NULL, *beside = NULL, *data = NULL;
    if (n != 0) {
        if (n > CODEC_MOST_BUFFERS + 1)
            return broken();
        beside = PyList_New((Py_ssize_t)n);
        if (beside == NULL)
            return NULL;
        for (uint32_t i = 0; i < n; i++) {
            PyObject *buffer = take_buffer(d, i);
            if (buffer == NULL)
                goto done;
            PyList_SET_ITEM(beside, (Py_ssize_t)i, buffer);
        }
    }
    if (tag == 'Q')
        data = take_buffer(d, n);
    else
        data = PyMemoryView_FromMemory((char *)(uintptr_t)d->at, (Py_ssize_t)left(d), PyBUF_READ);
    if (data != NULL)
        result = load_pickle(d, data, beside);
    d->at = d->end;

done:
    Py_XDECREF(data);
    Py_XDECREF(beside);
    return result;
}

static PyObject *decode_one(decoder *, int depth);

static PyObject *decode_list(decoder *d)
{
    uint32_t n;
    if (!get_count(d, &n) || n > left(d)) /* each value takes a byte at least */
        return broken();
    PyObject *list = PyList_New((Py_ssize_t)n);
    for (uint32_t i = 0; list != NULL && i < n; i++) {
        PyObject *v = decode_one(d, 1);
        if (v == NULL)
            Py_CLEAR(list);
        else
            PyList_SET_ITEM(list, (Py_ssize_t)i, v);
    }
    return list;
}

static PyObject *decode_dict(decoder *d)
{
    uint32_t n;
    if (!get_count(d, &n) || n > left(d) / 2)
        return broken();
    PyObject *dict = PyDict_New();
    for (uint32_t i = 0; dict != NULL && i < n; i++) {
        PyObject *key = decode_one(d, 1), *value = key == NULL ? NULL : decode_one(d, 1);
        if (value == NULL || PyDict_SetItem(dict, key, value) < 0)
            Py_CLEAR(dict);
        Py_XDECREF(key);
        Py_XDECREF(value);
    }
    return dict;
}

static PyObject *decode_one(decoder *d, int depth)
{
    if (left(d) == 0)
        return broken();
    char tag = (char)*d->at++;
    switch (tag) {
    case 'i': {
        int32_t n;
        if (left(d) < sizeof n)
            return broken();
        memcpy(&n, d->at, sizeof n);
        d->at += sizeof n;
        return PyLong_FromLong(n);
    }
    case 'l': {
        int64_t n;
        if (left(d) < sizeof n)
            return broken();
        memcpy(&n, d->at, sizeof n);
        d->at += sizeof n;
        return PyLong_FromLongLong(n);
    }
    case 'N':
        Py_RETURN_NONE;
    case 'T':
        Py_RETURN_TRUE;
    case 'F':
        Py_RETURN_FALSE;
    case 'f': {
        double f;
        if (left(d) < sizeof f)
            return broken();
        memcpy(&f, d->at, sizeof f);
        d->at += sizeof f;
        return PyFloat_FromDouble(f);
    }
    case 's':
    case 'y': {
        uint32_t n;
        if (!get_count(d, &n) || left(d) < n)
            return broken();
        const char *data = (const char *)d->at;
        d->at += n;
        return tag == 's' ? PyUnicode_DecodeUTF8(data, (Py_ssize_t)n, NULL)
                          : PyBytes_FromStringAndSize(data, (Py_ssize_t)n);
    }
    case '(': {
        uint32_t n;
        if (!get_count(d, &n) || n > left(d) || depth == CODEC_DEPTH) /* each value takes a byte at least */
            return broken();
        PyObject *tuple = PyTuple_New((Py_ssize_t)n);
        if (tuple == NULL)
            return NULL;
        for (uint32_t i = 0; i < n; i++) {
            PyObject *v = decode_one(d, depth + 1);
            if (v == NULL) {
                Py_DECREF(tuple);
                return NULL;
            }
            PyTuple_SET_ITEM(tuple, (Py_ssize_t)i, v);
        }
        return tuple;
    }
    case '[':
        return depth > 0 ? broken() : decode_list(d);
    case '{':
        return depth > 0 ? broken() : decode_dict(d);
    case 'S':
    case 'Y':
        return depth > 0 ? broken() : decode_large(d, tag);
    case 'p':
    case 'P':
    case 'Q':
        return depth > 0 ? broken() : decode_pickle(d, tag);
    default:
        return broken();
    }
}

PyObject *decode_value(core_state *st, int serializer, const void *head, size_t size, const buffers *b, size_t first)
{
    const unsigned char *bytes = head;
    if (size == 5 && bytes[0] == 'i') { /* what comes most often has the shortest way */
        int32_t n;
        memcpy(&n, bytes + 1, sizeof n);
        return PyLong_FromLong(n);
    }
    decoder d = {.st = st, .at = bytes, .buffers = b, .first = first, .serializer = serializer};
    d.end = d.at + size;
    PyObject *v = decode_one(&d, 0);
    if (v != NULL && d.at != d.end) {
        Py_DECREF(v);
        return broken();
    }
    return v;
}

bool cursor_next(item_cursor *c, item_frame *f)
{
    uint32_t size, first;
    if ((size_t)(c->end - c->at) < CODEC_FRAME)
        goto fail;
    memcpy(&size, c->at, 4);
    memcpy(&first, c->at + 4, 4);
    if ((size_t)(c->end - c->at) - CODEC_FRAME < size)
        goto fail;
    f->head = c->at + CODEC_FRAME;
    f->size = size;
    f->first = first & ~CODEC_EXPLICIT;
    f->explicit_arguments = (first & CODEC_EXPLICIT) != 0;
    c->at = f->head + size;
    return true;

fail:
    broken();
    return false;
}

/* ---- Where buffers come from ------------------------------------------------------------------------------------ */

static PyObject *take_of_result(const buffers *b, size_t i)
{
    tercio_view view;
    int error = tercio_take(b->from, &b->blocks[i], &view);
    return error < 0 ? error_raise(b->st, NULL, error) : block_new(b->st, &view);
}

static PyObject *take_of_chunk(const buffers *b, size_t i)
{
    tercio_view view;
    int error = tercio_call_take(b->from, &b->blocks[i], &view);
    return error < 0 ? error_raise(b->st, NULL, error) : block_new(b->st, &view);
}

int answer_open(answer_bytes *a, core_state *st, tercio_run *run, const tercio_result *r)
{
    *a = (answer_bytes){.head = r->out.data, .size = r->out.size};
    a->buffers = (buffers){.take = take_of_result, .n = r->n_blocks, .blocks = r->blocks, .from = run, .st = st};
    if (a->size != 0 || r->n_blocks == 0)
        return 0;
    int error = tercio_take(run, &r->blocks[0], &a->view);
    if (error < 0) {
        error_raise(st, NULL, error);
        return -1;
    }
    a->viewed = true;
    a->head = a->view.data;
    a->size = a->view.size;
    a->buffers.n--;
    a->buffers.blocks++;
    return 0;
}

void answer_close(answer_bytes *a)
{
    if (a->viewed)
        tercio_give(&a->view);
}

buffers buffers_of_chunk(core_state *st, tercio_call *call, const tercio_chunk *chunk)
{
    return (buffers){.take = take_of_chunk, .n = chunk->n_blocks, .blocks = chunk->blocks, .from = call, .st = st};
}

/* ---- For tests -------------------------------------------------------------------------------------------------- */

static PyObject *take_of_sequence(const buffers *b, size_t i)
{
    PyObject *part = PySequence_Fast_GET_ITEM((PyObject *)b->from, (Py_ssize_t)(i + 1));
    return PyByteArray_FromObject(part); /* writable, as a block is */
}

PyObject *codec_decode(PyObject *module, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"parts", "serializer", NULL};
    PyObject *given, *name = NULL, *v = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|O:decode", names, &given, &name))
        return NULL;
    int serializer = name == NULL ? SERIALIZER_PICKLE : call_serializer(name);
    if (serializer < 0)
        return NULL;
    PyObject *parts = PySequence_Tuple(given);
    if (parts == NULL)
        return NULL;
    if (PyTuple_GET_SIZE(parts) == 0) {
        PyErr_SetString(PyExc_ValueError, "decode() needs at least one part");
        goto done;
    }
    Py_buffer head;
    if (PyObject_GetBuffer(PyTuple_GET_ITEM(parts, 0), &head, PyBUF_SIMPLE) < 0)
        goto done;
    core_state *st = PyModule_GetState(module);
    buffers b = {.take = take_of_sequence, .n = (size_t)PyTuple_GET_SIZE(parts) - 1, .from = parts, .st = st};
    v = decode_value(st, serializer, head.buf, (size_t)head.len, &b, 0);
    PyBuffer_Release(&head);

done:
    Py_DECREF(parts);
    return v;
}
