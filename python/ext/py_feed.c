/* SPDX-License-Identifier: MIT
 *
 * The way in of a map: from the user's iterator, chunk by chunk, to the workers. A message is encoded once; one that is
 * refused is kept and offered again first.
 */
#include "run.h"

#include <math.h>

#define MOST_PARTS 256u /* buffers of one message */
#define ADAPT_TO 200e-6 /* seconds of work in a chunk whose size adapts */

/* The references of a message that was never handed in. */
void run_drop_pending(RunObject *r)
{
    bool flag;
    if (!r->pending)
        return;
    r->pending = false;
    if (r->pool->method == TERCIO_THREADING)
        for (uint32_t i = 0; i < r->message_items; i++)
            Py_DECREF(reference_at(r->encoder.data, i, &flag));
    encoder_reset(&r->encoder);
}

void run_flush(RunObject *r)
{
    if (r->owes && r->run != NULL && !pool_is_foreign(r->pool))
        tercio_run_flush(r->run);
    r->owes = false;
}

static void before_pickle(void *run)
{
    run_flush(run);
}

void run_feed_prepare(RunObject *r)
{
    static const PyTypeObject *const plain[] = {
        &PyListIter_Type, &PyTupleIter_Type,   &PyRangeIter_Type,     &PyLongRangeIter_Type,
        &PySetIter_Type,  &PyDictIterKey_Type, &PyDictIterValue_Type, &PyDictIterItem_Type,
    };
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++)
        r->plain |= Py_TYPE(r->items) == plain[i];
    r->encoder.before_pickle = before_pickle;
    r->encoder.user = r;
}

static uint64_t chunk_next(RunObject *r)
{
    if (r->adapt) {
        double t = tercio_item_time(r->run);
        if (t > 0) {
            double wanted = ADAPT_TO / t;
            if (wanted > r->chunk_size * 2)
                wanted = r->chunk_size * 2;
            r->chunk_size = wanted < 1 ? 1 : wanted > 4096 ? 4096 : floor(wanted);
        }
    }
    if (r->max_active != 0 && r->chunk_size > (double)r->max_active)
        return r->max_active;
    if (r->chunk_size >= 1e9)
        return 1000000000;
    double edge = r->edge + r->chunk_size;
    uint64_t n = (uint64_t)(ceil(edge - 1e-9) - ceil(r->edge - 1e-9));
    r->edge = edge > 1e15 ? edge - floor(edge) : edge;
    return n == 0 ? 1 : n;
}

/* An element that is an iterator itself can't be pickled (nor can some other iterables), but it would be unpacked in
 * the worker anyhow: what it yields is sent. */
static int encode_element(RunObject *r, PyObject *item)
{
    encoder *e = &r->encoder;
    if (!r->call->unpack || Py_TYPE(item)->tp_iter == NULL || PyTuple_CheckExact(item) || PyDict_Check(item))
        return encode_item(e, item, 0);
    if (!PyIter_Check(item)) {
        if (encode_item(e, item, 0) == 0)
            return 0;
        if (PyUnicode_Check(item) || PyBytes_Check(item) || PyList_Check(item) || call_is_array(item) ||
            !PyErr_ExceptionMatches(PyExc_Exception))
            return -1;
        PyErr_Clear();
    }
    run_flush(r); /* the iterator may be anybody's */
    PyObject *tuple = PySequence_Tuple(item);
    if (tuple == NULL)
        return -1;
    int done = encode_item(e, tuple, 0);
    Py_DECREF(tuple);
    return done;
}

/* The error that is raised concerns item `index` alone. Returns 0: it is in its place; -1 it ends the map. */
static int item_failed(RunObject *r, uint64_t index)
{
    PyObject *exc = error_not_picklable(r->pool->env.st, "argument", r->call, index);
    if (exc == NULL)
        return -1;
    if (r->return_errors && PyObject_IsInstance(exc, PyExc_Exception) == 1)
        return run_place(r, index, exc);
    Py_XSETREF(r->deferred, exc);
    return -1;
}

/* Takes the next chunk from the iterator. Returns 1: a message is pending; 0: there are no more items. */
static int fill(RunObject *r)
{
    encoder *e = &r->encoder;
    bool threading = r->pool->method == TERCIO_THREADING;
    encoder_reset(e);
    r->message_items = 0;
    r->message_index = r->taken;
    uint64_t wanted = chunk_next(r);
    PyObject *items = r->items; /* what it runs may end the pool, and with it our reference */
    Py_XINCREF(items);
    while (r->message_items < wanted && r->items != NULL && e->n_parts < MOST_PARTS) {
        PyObject *item = r->taken < r->limit ? Py_TYPE(items)->tp_iternext(items) : NULL;
        if (r->run == NULL) {
            Py_XDECREF(item);
            break;
        }
        if (item == NULL) {
            PyObject *exc = core_take_exception();
            if (exc != NULL && PyObject_TypeCheck(exc, (PyTypeObject *)PyExc_StopIteration))
                Py_CLEAR(exc);
            if (exc != NULL)
                Py_XSETREF(r->deferred, exc);
            Py_CLEAR(r->items);
            break;
        }
        uint64_t index = r->taken++;
        size_t parts = e->n_parts;
        int done = threading ? encode_reference(e, item, false) : encode_element(r, item);
        if (done == 0) {
            r->message_items++;
            /* Kept for the text of an error, unless it is large. */
            if (threading || e->n_parts != parts) {
                Py_DECREF(item);
            } else if (window_reach(&r->arguments, index) == 0) {
                *window_at(&r->arguments, index) = item;
            } else {
                PyErr_Clear();
                Py_DECREF(item);
            }
            continue;
        }
        Py_DECREF(item);
        if (item_failed(r, index) < 0) {
            Py_CLEAR(r->items);
            break;
        }
        if (r->message_items > 0)
            break; /* a message's items are numbered without gaps */
        r->message_index = r->taken;
    }
    Py_XDECREF(items);
    r->pending = r->message_items > 0;
    if (r->run == NULL)
        run_drop_pending(r);
    return r->pending;
}

/* An iteration doesn't run far ahead of who consumes it, nor, in order, of an item that takes long. Something is still
 * to come whenever this says no, so whoever waits then is woken. */
static bool far_ahead(const RunObject *r, double chunk)
{
    uint64_t ahead = r->taken - r->results.base;
    if (r->taken > r->arrived && r->ready_bytes > MOST_READY_BYTES)
        return true;
    if (r->max_active != 0) /* finished tasks don't count as active, but their results are kept */
        return r->max_active < UINT64_MAX / 4 && ahead > 0 && ahead + (uint64_t)ceil(chunk) > 4 * r->max_active;
    return ahead > MOST_READY && (double)ahead > 4 * chunk * r->pool->n_workers;
}

/* Hands in what the workers have room for. Returns the number of messages, or -1 with an exception. */
int run_feed(RunObject *r)
{
    int pushed = 0;
    double chunk = r->chunk_size;
    r->wants_room = false;
    while (!r->fed && r->run != NULL) {
        if (!r->pending) {
            if (r->max_active != 0) {
                uint64_t active = r->taken - r->arrived;
                uint64_t next = chunk > (double)r->max_active ? r->max_active : (uint64_t)ceil(chunk);
                if (active > 0 && active + next > r->max_active)
                    return pushed;
            }
            if (r->lazy && far_ahead(r, chunk))
                return pushed;
            if (r->items != NULL) {
                int room = tercio_run_room(r->run);
                if (room == 0) {
                    r->wants_room = true;
                    return pushed;
                }
                if (room < 0 && room != TERCIO_ECANCELED) {
                    error_raise(r->pool->env.st, r->pool, room);
                    return -1;
                }
            }
            if (r->items == NULL || fill(r) == 0) {
                if (r->run == NULL)
                    return pushed;
                if (r->items != NULL)
                    continue; /* a failed item alone */
                r->fed = true;
                tercio_run_end(r->run);
                return pushed;
            }
        }
        tercio_message message = {
            .size = sizeof message,
            .index = r->message_index,
            .n_items = r->message_items,
            .cookie = r->message_index,
            .parts = encoder_parts(&r->encoder),
            .n_parts = r->encoder.n_parts,
            .more = r->plain,
        };
        int error = tercio_push(r->run, &message, false);
        if (error == 0) {
            r->wants_room = true;
            return pushed;
        }
        if (error < 0) {
            run_drop_pending(r);
            if (error == TERCIO_ECANCELED) { /* the run was stopped: its results say why */
                Py_CLEAR(r->items);
                continue;
            }
            error_raise(r->pool->env.st, r->pool, error);
            return -1;
        }
        r->pending = false;
        r->owes = r->plain;
        pushed++;
    }
    return pushed;
}
