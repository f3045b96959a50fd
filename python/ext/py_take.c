/* SPDX-License-Identifier: MIT
 *
 * The way out of a map: results are decoded straight into their places. To decode one may run anybody's code, which may
 * end the map.
 */
#include "run.h"

int run_place(RunObject *r, uint64_t index, PyObject *value)
{
    uint64_t number = r->ordered ? index : r->arrived;
    if (number < r->results.base || window_reach(&r->results, number) < 0) {
        Py_DECREF(value);
        return -1;
    }
    /* Every item has one answer, so the place is free. It isn't looked at: that alone would cost a fresh page. */
    *window_at(&r->results, number) = value;
    r->arrived++;
    return 0;
}

static PyObject *read_value(RunObject *r, const void *head, size_t size, const buffers *beside)
{
    if (codec_is_pickle(head, size)) {
        run_flush(r);
        pool_mean_main(r->pool);
    }
    return decode_value(r->pool->env.st, r->call->serializer, head, size, beside, 0);
}

static PyObject *read_result(RunObject *r, const tercio_result *res)
{
    core_state *st = r->pool->env.st;
    PyObject *v = worker_handed_over(r->pool, res);
    if (v != NULL)
        return v;
    answer_bytes a;
    if (answer_open(&a, st, r->run, res) < 0)
        return NULL;
    v = read_value(r, a.head, a.size, &a.buffers);
    answer_close(&a);
    return v;
}

/* A result to its place, or what became of it instead; `value` is taken over. Returns as take_in. */
static int settle(RunObject *r, PyObject *value, bool failed, bool of_item, uint64_t index)
{
    if (value == NULL)
        return -1;
    if (failed && (!of_item || !r->return_errors)) {
        if (r->failure == NULL)
            r->failure = value;
        else
            Py_DECREF(value);
        return 1;
    }
    return run_place(r, index, value);
}

static int take_single(RunObject *r, tercio_result *res)
{
    PyObject *value = NULL, *argument = NULL;
    if (res->status != 0)
        run_flush(r); /* an exception is unpickled, and more */
    if (res->kind == TERCIO_KIND_EXIT)
        return pool_note_exit(r->pool, r->run, res);
    bool of_item = res->kind == TERCIO_KIND_RESULT;
    if (of_item)
        argument = window_take(&r->arguments, res->index);
    if (res->status == 0) {
        value = read_result(r, res);
        r->ready_bytes += res->out.size;
        for (size_t i = 0; i < res->n_blocks; i++)
            r->ready_bytes += res->blocks[i].size;
    }
    bool failed = value == NULL;
    if (failed) {
        value = res->status == 0 ? core_take_exception()
                                 : error_of_result(r->pool, r->run, r->call, res, argument, false, r->timeout);
        if (res->status == TERCIO_ETIMEDOUT && r->pool->method == TERCIO_THREADING)
            worker_interrupt_threads(r->pool->env.st, r->pool, r->call, res->index);
    }
    Py_XDECREF(argument);
    return settle(r, value, failed, of_item, res->index);
}

/* Good answers of several items, one behind the other. Returns as take_in; *row is what is left of them. */
static int take_values(RunObject *r, const tercio_result *res, tercio_bytes *row, bool references)
{
    const tercio_run *run = r->run;
    tercio_bytes answer;
    bool flag;
    for (uint32_t i = 0; i < res->n_items && r->run == run; i++) {
        uint64_t index = res->index + i;
        PyObject *value;
        if (!tercio_row_next(row, &answer)) {
            PyErr_SetString(PyExc_RuntimeError, "a worker's answers make no sense: they are cut off or overwritten");
            return -1;
        }
        Py_XDECREF(window_take(&r->arguments, index));
        if (references && answer.size == sizeof(void *))
            value = reference_at(answer.data, 0, &flag);
        else
            value = read_value(r, answer.data, answer.size, NULL);
        bool failed = value == NULL;
        int done = settle(r, failed ? core_take_exception() : value, failed, true, index);
        if (done != 0)
            return done;
    }
    return 0;
}

static int take_row(RunObject *r, const tercio_result *res)
{
    bool references = r->pool->method == TERCIO_THREADING, flag;
    tercio_bytes row = res->out, answer;
    r->ready_bytes += res->out.size;
    int done = take_values(r, res, &row, references);
    while (references && tercio_row_next(&row, &answer)) /* nobody will have them */
        if (answer.size == sizeof(void *))
            Py_XDECREF(reference_at(answer.data, 0, &flag));
    return done;
}

/* Results to their places. Returns 0; -1 with an exception: the map can't go on; 1: it failed (r->failure). */
static int take_in(RunObject *r, tercio_result *res)
{
    tercio_run *run = r->run;
    r->reading = true;
    int done = res->n_items > 1 ? take_row(r, res) : take_single(r, res);
    r->reading = false;
    if (!pool_is_foreign(r->pool))
        tercio_release(run, res);
    if (r->late != NULL) {
        r->late = NULL;
        if (!pool_is_foreign(r->pool))
            tercio_run_close(run);
    }
    return done;
}

int run_drain(RunObject *r)
{
    int n = 0;
    while (r->run != NULL && !r->ended) {
        if (r->lazy && run_is_ready(r) &&
            (r->arrived - r->results.base > MOST_READY || r->ready_bytes > MOST_READY_BYTES))
            return n; /* who consumes is behind: the workers shall wait */
        r->result.size = sizeof r->result;
        int found = tercio_next(r->run, 0, &r->result);
        if (found == 1) {
            n += (int)r->result.n_items;
            found = take_in(r, &r->result);
            if (found != 0)
                return found < 0 ? -1 : n;
            continue;
        }
        if (found == 0)
            r->ended = true;
        else if (found != TERCIO_EAGAIN && found != TERCIO_EINTERRUPTED) {
            error_raise(r->pool->env.st, r->pool, found);
            return -1;
        }
        return n;
    }
    return n;
}

void run_forget_arguments(RunObject *r)
{
    window *w = &r->arguments;
    if (w->capacity == 0) {
        w->base = r->taken;
        return;
    }
    if (r->arrived == r->taken && !r->pending) {
        w->base = r->taken;
        return;
    }
    while (w->base < r->taken && !window_has(w, w->base))
        w->base++;
}
