/* SPDX-License-Identifier: MIT
 *
 * From values to bytes. codec.h says what the bytes are.
 */
#include "codec.h"

#define MOST_ITEMS 256                 /* of a list or dict; pickle is good at more */
#define MOST_SMALL ((size_t)64 * 1024) /* a tuple that grows beyond is pickled: pickle writes what repeats once */

/* ---- The buffer callback ---------------------------------------------------------------------------------------- */

/* Pickle hands it each PickleBuffer. It may outlive the encoder (a pickler in Python keeps it), so it is told. */
typedef struct {
    PyObject_HEAD
    encoder *encoder; /* NULL: gone */
} CollectorObject;

static int add_part(encoder *e, const void *data, size_t size, PyObject *owner)
{
    if (e->n_parts == e->part_capacity) {
        size_t capacity = e->part_capacity * 2;
        tercio_bytes *parts = PyMem_Realloc(e->parts, capacity * sizeof *parts);
        if (parts == NULL)
            goto no_memory;
        e->parts = parts;
        PyObject **owners = PyMem_Realloc(e->owners, capacity * sizeof *owners);
        if (owners == NULL)
            goto no_memory;
        e->owners = owners;
        e->part_capacity = capacity;
    }
    e->parts[e->n_parts] = (tercio_bytes){.data = data, .size = size};
    Py_INCREF(owner);
    e->owners[e->n_parts++] = owner;
    return 0;

no_memory:
    PyErr_NoMemory();
    return -1;
}

static PyObject *collector_call(PyObject *self, PyObject *args, PyObject *Py_UNUSED(kwargs))
{
    encoder *e = ((CollectorObject *)self)->encoder;
    PyObject *buffer;
    if (!PyArg_ParseTuple(args, "O:buffer_callback", &buffer))
        return NULL;
    if (e == NULL || !PyPickleBuffer_Check(buffer))
        Py_RETURN_TRUE; /* in band */
    const Py_buffer *view = PyPickleBuffer_GetBuffer(buffer);
    if (view == NULL)
        return NULL;
    if (e->in_band || (size_t)view->len < CODEC_LARGE || e->n_parts > CODEC_MOST_BUFFERS ||
        !PyBuffer_IsContiguous(view, 'A'))
        Py_RETURN_TRUE;
    if (add_part(e, view->buf, (size_t)view->len, buffer) < 0)
        return NULL;
    Py_RETURN_FALSE;
}

static void collector_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyType_Slot collector_slots[] = {
    {Py_tp_new, core_no_new},
    {Py_tp_call, collector_call},
    {Py_tp_dealloc, collector_dealloc},
    {0, NULL},
};
PyType_Spec collector_spec = {
    .name = "tercio._core._Collector",
    .basicsize = sizeof(CollectorObject),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = collector_slots,
};

/* ---- The encoder ------------------------------------------------------------------------------------------------ */

int encoder_init(encoder *e, core_state *st, int serializer)
{
    *e = (encoder){.st = st, .serializer = serializer, .capacity = 512, .part_capacity = 8, .n_parts = 1};
    e->data = PyMem_Malloc(e->capacity);
    e->parts = PyMem_Malloc(e->part_capacity * sizeof *e->parts);
    e->owners = PyMem_Malloc(e->part_capacity * sizeof *e->owners);
    if (e->data == NULL || e->parts == NULL || e->owners == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    e->owners[0] = NULL;
    e->collector = st->collector_type->tp_alloc(st->collector_type, 0);
    if (e->collector == NULL)
        return -1;
    ((CollectorObject *)e->collector)->encoder = e;
    return 0;
}

static void drop_parts(encoder *e, size_t from)
{
    while (e->n_parts > from)
        Py_DECREF(e->owners[--e->n_parts]);
}

void encoder_fini(encoder *e)
{
    if (e->st == NULL)
        return;
    if (e->owners != NULL)
        drop_parts(e, 1);
    if (e->collector != NULL)
        ((CollectorObject *)e->collector)->encoder = NULL;
    Py_CLEAR(e->collector);
    PyMem_Free(e->owners);
    PyMem_Free(e->parts);
    PyMem_Free(e->data);
    *e = (encoder){0};
}

void encoder_reset(encoder *e)
{
    drop_parts(e, 1);
    e->size = 0;
    if (e->capacity > (size_t)1 << 20) { /* one large message shouldn't cost memory for ever */
        unsigned char *data = PyMem_Realloc(e->data, 4096);
        if (data != NULL) {
            e->data = data;
            e->capacity = 4096;
        }
    }
}

const tercio_bytes *encoder_parts(encoder *e)
{
    e->parts[0] = (tercio_bytes){.data = e->data, .size = e->size};
    return e->parts;
}

static int grow(encoder *e, size_t more)
{
    size_t capacity = e->capacity;
    while (capacity - e->size < more) {
        if (capacity > SIZE_MAX / 4) {
            PyErr_NoMemory();
            return -1;
        }
        capacity *= 2;
    }
    unsigned char *data = PyMem_Realloc(e->data, capacity);
    if (data == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    e->data = data;
    e->capacity = capacity;
    return 0;
}

/* Room for n bytes behind what is there, or NULL with an exception. */
static inline unsigned char *room(encoder *e, size_t n)
{
    if (e->capacity - e->size < n && grow(e, n) < 0)
        return NULL;
    return e->data + e->size;
}

static int put_tag(encoder *e, char tag)
{
    unsigned char *p = room(e, 1);
    if (p == NULL)
        return -1;
    p[0] = (unsigned char)tag;
    e->size++;
    return 0;
}

static int put_counted(encoder *e, char tag, const void *data, size_t size)
{
    unsigned char *p = room(e, size + 5);
    if (p == NULL)
        return -1;
    uint32_t count = (uint32_t)size;
    p[0] = (unsigned char)tag;
    memcpy(p + 1, &count, 4);
    memcpy(p + 5, data, size);
    e->size += size + 5;
    return 0;
}

/* A tag and a count with nothing behind it yet. */
static int put_head(encoder *e, char tag, uint32_t count)
{
    unsigned char *p = room(e, 5);
    if (p == NULL)
        return -1;
    p[0] = (unsigned char)tag;
    memcpy(p + 1, &count, 4);
    e->size += 5;
    return 0;
}

/* The string's UTF-8. Returns 1; 0 when it has none (surrogates). */
static int utf8_of(PyObject *string, const char **data, size_t *size)
{
    if (PyUnicode_IS_COMPACT_ASCII(string)) {
        *data = (const char *)PyUnicode_1BYTE_DATA(string);
        *size = (size_t)PyUnicode_GET_LENGTH(string);
        return 1;
    }
    Py_ssize_t n;
    *data = PyUnicode_AsUTF8AndSize(string, &n);
    if (*data == NULL) {
        PyErr_Clear();
        return 0;
    }
    *size = (size_t)n;
    return 1;
}

static int encode_small(encoder *, PyObject *, int depth, size_t start);

static int encode_list(encoder *e, PyObject *list, size_t start)
{
    Py_ssize_t n = PyList_GET_SIZE(list);
    if (n > MOST_ITEMS)
        return 0;
    if (put_head(e, '[', (uint32_t)n) < 0)
        return -1;
    for (Py_ssize_t i = 0; i < n && i < PyList_GET_SIZE(list); i++) {
        int done = encode_small(e, PyList_GET_ITEM(list, i), 1, start);
        if (done <= 0)
            return done;
        if (e->size - start > MOST_SMALL)
            return 0;
    }
    return PyList_GET_SIZE(list) == n;
}

static int encode_dict(encoder *e, PyObject *dict, size_t start)
{
    Py_ssize_t n = PyDict_GET_SIZE(dict), at = 0, count = 0;
    PyObject *key, *value;
    if (n > MOST_ITEMS)
        return 0;
    if (put_head(e, '{', (uint32_t)n) < 0)
        return -1;
    while (PyDict_Next(dict, &at, &key, &value)) { /* nothing of Python's runs meanwhile: all types are exact */
        int done = encode_small(e, key, 1, start);
        if (done > 0)
            done = encode_small(e, value, 1, start);
        if (done <= 0)
            return done;
        if (e->size - start > MOST_SMALL)
            return 0;
        count++;
    }
    return count == n;
}

/* Returns 1 encoded; 0 not for this codec (what was written is to be taken back); -1 with an exception. */
static int encode_small(encoder *e, PyObject *v, int depth, size_t start)
{
    PyTypeObject *type = Py_TYPE(v);
    if (type == &PyLong_Type) {
        int overflow;
        int64_t n = PyLong_AsLongLongAndOverflow(v, &overflow);
        if (overflow != 0)
            return 0;
        unsigned char *p = room(e, 9);
        if (p == NULL)
            return -1;
        if (n >= INT32_MIN && n <= INT32_MAX) {
            int32_t small = (int32_t)n;
            p[0] = 'i';
            memcpy(p + 1, &small, 4);
            e->size += 5;
        } else {
            p[0] = 'l';
            memcpy(p + 1, &n, 8);
            e->size += 9;
        }
        return 1;
    }
    if (v == Py_None)
        return put_tag(e, 'N') < 0 ? -1 : 1;
    if (type == &PyUnicode_Type) {
        const char *data;
        size_t size;
        if (!utf8_of(v, &data, &size))
            return 0;
        if (size < CODEC_LARGE || (e->in_band && size < UINT32_MAX - 16))
            return put_counted(e, 's', data, size) < 0 ? -1 : 1;
        if (depth > 0)
            return 0;
        return put_tag(e, 'S') < 0 || add_part(e, data, size, v) < 0 ? -1 : 1;
    }
    if (type == &PyFloat_Type) {
        unsigned char *p = room(e, 9);
        if (p == NULL)
            return -1;
        double d = PyFloat_AS_DOUBLE(v);
        p[0] = 'f';
        memcpy(p + 1, &d, 8);
        e->size += 9;
        return 1;
    }
    if (type == &PyBool_Type)
        return put_tag(e, v == Py_True ? 'T' : 'F') < 0 ? -1 : 1;
    if (type == &PyBytes_Type) {
        size_t size = (size_t)PyBytes_GET_SIZE(v);
        if (size < CODEC_LARGE || (e->in_band && size < UINT32_MAX - 16))
            return put_counted(e, 'y', PyBytes_AS_STRING(v), size) < 0 ? -1 : 1;
        if (depth > 0)
            return 0;
        return put_tag(e, 'Y') < 0 || add_part(e, PyBytes_AS_STRING(v), size, v) < 0 ? -1 : 1;
    }
    if (depth == 0 && type == &PyDict_Type)
        return encode_dict(e, v, start);
    if (depth == 0 && type == &PyList_Type)
        return encode_list(e, v, start);
    if (type == &PyTuple_Type) {
        Py_ssize_t n = PyTuple_GET_SIZE(v);
        if (depth == CODEC_DEPTH || (size_t)n > MOST_SMALL)
            return 0;
        if (put_head(e, '(', (uint32_t)n) < 0)
            return -1;
        for (Py_ssize_t i = 0; i < n; i++) {
            int done = encode_small(e, PyTuple_GET_ITEM(v, i), depth + 1, start);
            if (done <= 0)
                return done;
            if (e->size - start > MOST_SMALL)
                return 0;
        }
        return 1;
    }
    return 0;
}

static int encode_pickle(encoder *e, PyObject *v)
{
    core_state *st = e->st;
    size_t parts = e->n_parts, start = e->size;
    PyObject *dumps = core_function(st, FN_PICKLE_DUMPS + 2 * e->serializer);
    if (dumps == NULL)
        return -1;
    if (e->before_pickle)
        e->before_pickle(e->user);
    PyObject *stack[4] = {NULL, v, st->five, e->collector};
    /* dill's pickler is given no buffer callback: its own reducers don't expect one. */
    PyObject *keywords = e->serializer == SERIALIZER_DILL ? NULL : st->kw_buffer_callback;
    PyObject *pickle = PyObject_Vectorcall(dumps, stack + 1, 2 | PY_VECTORCALL_ARGUMENTS_OFFSET, keywords);
    if (pickle == NULL)
        goto fail;
    if (!PyBytes_CheckExact(pickle)) {
        PyErr_SetString(PyExc_TypeError, "the serializer's dumps didn't return bytes");
        goto fail;
    }
    size_t size = (size_t)PyBytes_GET_SIZE(pickle);
    uint32_t buffers_beside = (uint32_t)(e->n_parts - parts);
    if (size >= CODEC_LARGE && !e->in_band) {
        if (put_head(e, 'Q', buffers_beside) < 0 || add_part(e, PyBytes_AS_STRING(pickle), size, pickle) < 0)
            goto fail;
    } else {
        if (buffers_beside != 0 ? put_head(e, 'P', buffers_beside) < 0 : put_tag(e, 'p') < 0)
            goto fail;
        unsigned char *p = room(e, size);
        if (p == NULL)
            goto fail;
        memcpy(p, PyBytes_AS_STRING(pickle), size);
        e->size += size;
    }
    Py_DECREF(pickle);
    return 0;

fail:
    Py_XDECREF(pickle);
    drop_parts(e, parts);
    e->size = start;
    return -1;
}

int encode_value(encoder *e, PyObject *v)
{
    size_t start = e->size, parts = e->n_parts;
    int done = encode_small(e, v, 0, start);
    if (done > 0)
        return 0;
    e->size = start;
    drop_parts(e, parts);
    return done < 0 ? -1 : encode_pickle(e, v);
}

int encode_item(encoder *e, PyObject *v, uint32_t flags)
{
    size_t start = e->size;
    uint32_t first = (uint32_t)(e->n_parts - 1) | flags;
    if (room(e, CODEC_FRAME + 9) == NULL)
        return -1;
    e->size += CODEC_FRAME;
    if (encode_value(e, v) < 0) {
        e->size = start;
        return -1;
    }
    uint32_t size = (uint32_t)(e->size - start - CODEC_FRAME); /* heads are small: what is large is beside them */
    memcpy(e->data + start, &size, 4);
    memcpy(e->data + start + 4, &first, 4);
    return 0;
}

int encode_reference(encoder *e, PyObject *v, bool explicit_arguments)
{
    uintptr_t word = (uintptr_t)v | (explicit_arguments ? 1 : 0);
    unsigned char *p = room(e, sizeof word);
    if (p == NULL)
        return -1;
    memcpy(p, &word, sizeof word);
    e->size += sizeof word;
    Py_INCREF(v);
    return 0;
}

/* ---- For tests -------------------------------------------------------------------------------------------------- */

PyObject *codec_encode(PyObject *module, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"obj", "serializer", NULL};
    PyObject *v, *name = NULL, *list = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|O:encode", names, &v, &name))
        return NULL;
    int serializer = name == NULL ? SERIALIZER_PICKLE : call_serializer(name);
    if (serializer < 0)
        return NULL;
    encoder e;
    if (encoder_init(&e, PyModule_GetState(module), serializer) < 0 || encode_value(&e, v) < 0)
        goto done;
    const tercio_bytes *parts = encoder_parts(&e);
    list = PyList_New((Py_ssize_t)e.n_parts);
    for (size_t i = 0; list != NULL && i < e.n_parts; i++) {
        PyObject *part = PyBytes_FromStringAndSize(parts[i].data, (Py_ssize_t)parts[i].size);
        if (part == NULL)
            Py_CLEAR(list);
        else
            PyList_SET_ITEM(list, (Py_ssize_t)i, part);
    }

done:
    encoder_fini(&e);
    return list;
}
