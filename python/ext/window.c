/* SPDX-License-Identifier: MIT
 *
 * A window over numbered objects: results at their places, and the arguments of what is not answered yet. Number i lies
 * at i modulo a power of two.
 */
#include "run.h"

#define MOST_PREPARED ((uint64_t)1 << 24) /* places */

int window_grow(window *w, uint64_t number)
{
    size_t capacity = w->capacity == 0 ? 64 : w->capacity;
    while (number - w->base >= capacity) {
        if (capacity > SIZE_MAX / 32) {
            PyErr_NoMemory();
            return -1;
        }
        capacity *= 2;
    }
    if (capacity == w->capacity)
        return 0;
    PyObject **slots;
    if (w->base == 0) { /* everything lies where it will lie */
        slots = PyMem_Realloc(w->slots, capacity * sizeof *slots);
        if (slots == NULL)
            goto no_memory;
        memset(slots + w->capacity, 0, (capacity - w->capacity) * sizeof *slots);
    } else {
        slots = PyMem_Calloc(capacity, sizeof *slots);
        if (slots == NULL)
            goto no_memory;
        for (uint64_t i = w->base; i < w->base + w->capacity; i++)
            slots[i & (capacity - 1)] = w->slots[i & (w->capacity - 1)];
        PyMem_Free(w->slots);
    }
    w->slots = slots;
    w->capacity = capacity;
    return 0;

no_memory:
    PyErr_NoMemory();
    return -1;
}

void window_prepare(window *w, uint64_t n)
{
    size_t capacity = 64;
    if (w->capacity != 0 || n > MOST_PREPARED)
        return;
    while (capacity < n)
        capacity *= 2;
    w->slots = PyMem_Calloc(capacity, sizeof *w->slots);
    if (w->slots != NULL)
        w->capacity = capacity; /* else it grows step by step */
}

PyObject *window_take(window *w, uint64_t number)
{
    if (!window_has(w, number))
        return NULL;
    PyObject *v = *window_at(w, number);
    *window_at(w, number) = NULL;
    return v;
}

void window_clear(window *w)
{
    window old = *w;
    *w = (window){0};
    for (size_t i = 0; i < old.capacity; i++)
        Py_XDECREF(old.slots[i]);
    PyMem_Free(old.slots);
}

/* The slots become the list; nobody has seen it before it is whole. */
PyObject *window_list(window *w, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (w->slots[i] == NULL) { /* can't be: every item has one answer */
            PyErr_SetString(PyExc_RuntimeError, "a result is missing");
            return NULL;
        }
#ifdef Py_GIL_DISABLED
    PyObject *list = PyList_New((Py_ssize_t)n);
    for (size_t i = 0; list != NULL && i < n; i++) {
        PyList_SET_ITEM(list, (Py_ssize_t)i, w->slots[i]);
        w->slots[i] = NULL;
    }
    return list;
#else
    /* A list's items are memory of PyMem's, as the slots are: they are handed over, not copied. */
    PyObject *list = PyList_New(0);
    if (list == NULL || n == 0)
        return list;
    PyObject **items = PyMem_Realloc(w->slots, n * sizeof *items);
    if (items == NULL)
        items = w->slots;
    ((PyListObject *)list)->ob_item = items;
    ((PyListObject *)list)->allocated = (Py_ssize_t)n;
    Py_SET_SIZE(list, (Py_ssize_t)n);
    *w = (window){0};
    return list;
#endif
}
