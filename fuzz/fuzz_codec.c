/* SPDX-License-Identifier: MIT
 *
 * The codec's decoder over any bytes: one value, then the same bytes as framed items. It has to come to an end with a
 * value or an exception. Pickles are left out: what they say is believed, and would be done.
 */
#include "codec.h"

PyMODINIT_FUNC PyInit__core(void);

static core_state *state;

static PyObject *take_bytes(const buffers *b, size_t i)
{
    const unsigned char *data = b->from;
    return PyByteArray_FromStringAndSize((const char *)data, (Py_ssize_t)(i * 16 % 64));
}

static bool is_pickle(const unsigned char *head, size_t size)
{
    return size > 0 && (head[0] == 'p' || head[0] == 'P' || head[0] == 'Q');
}

static void decode(const unsigned char *head, size_t size, const buffers *b, size_t first)
{
    if (is_pickle(head, size))
        return;
    PyObject *value = decode_value(state, SERIALIZER_PICKLE, head, size, b, first);
    if ((value == NULL) != (PyErr_Occurred() != NULL))
        abort();
    PyErr_Clear();
    Py_XDECREF(value);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const unsigned char nothing[64];
    buffers b = {.take = take_bytes, .n = size % 4, .from = (void *)(uintptr_t)nothing, .st = state};
    /* Memory of just that size, so that a look beyond it is seen. */
    unsigned char *head = malloc(size ? size : 1);
    if (head == NULL)
        return 0;
    memcpy(head, data, size);
    decode(head, size, &b, 0);
    item_cursor cursor = {.at = head, .end = head + size};
    item_frame frame;
    while (cursor_next(&cursor, &frame))
        decode(frame.head, frame.size, &b, frame.first);
    PyErr_Clear();
    free(head);
    return 0;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    if (PyImport_AppendInittab("_core", PyInit__core) < 0)
        abort();
    Py_Initialize();
    PyObject *module = PyImport_ImportModule("_core");
    if (module == NULL) {
        PyErr_Print();
        abort();
    }
    state = PyModule_GetState(module);
    return 0;
}
