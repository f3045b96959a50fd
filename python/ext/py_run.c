/* SPDX-License-Identifier: MIT
 *
 * MapRun: a map under way. The thread that wants results does everything: it takes items from the user's iterator,
 * encodes and pushes them, takes results out and puts them where they belong.
 *
 *     pass:  feed (until the workers have no room, or the limit is met)
 *            drain (all that is there, straight into its place)
 *            only when neither found anything: wait, without the GIL
 *
 * Places are a window over the numbers of results: slot i of a ring of a power of two. collect() never moves the
 * window's base, so that its slots end up being the list; iteration moves it on.
 */
#include "run.h"

#define FRESH 50e-6   /* seconds for which handing out beats looking */
#define HOG 2e-3      /* seconds after which another thread gets the GIL if it wants it ... */
#define LONGEST 20e-3 /* ... and signals are looked at, where there is no other thread */

/* ---- Opening and closing ---------------------------------------------------------------------------------------- */

static void unlist(RunObject *r)
{
    if (!r->listed)
        return;
    r->listed = false;
    if (r->previous != NULL)
        r->previous->next = r->next;
    else
        r->pool->runs = r->next;
    if (r->next != NULL)
        r->next->previous = r->previous;
    r->next = r->previous = NULL;
}

/* Ends the engine's run; results that are there stay. Safe to call twice. */
static void stop(RunObject *r)
{
    tercio_run *run = r->run;
    r->run = NULL;
    unlist(r);
    if (run != NULL && !r->ended && r->pool->engine != NULL && !pool_is_foreign(r->pool)) {
        tercio_abort(r->pool->engine, run); /* nobody waits for what still runs */
        if (r->pool->method == TERCIO_THREADING)
            worker_interrupt_unwanted(r->pool->env.st, r->pool);
    }
    if (run != NULL && r->reading) { /* unpickling a result may run anything, and end us; its bytes are the run's */
        if (!pool_is_foreign(r->pool))
            tercio_run_detach(run);
        r->late = run;
    } else if (run != NULL)
        tercio_run_close(run);
    run_drop_pending(r);
    Py_CLEAR(r->items);
    window_clear(&r->arguments);
}

static void close_run(RunObject *r)
{
    r->closed = true;
    stop(r);
    window_clear(&r->results);
    Py_CLEAR(r->deferred);
    Py_CLEAR(r->failure);
}

static int open_run(RunObject *r)
{
    if (r->opened)
        return 0;
    r->opened = true;
    if (pool_unusable(r->pool))
        return -1;
    tercio_map_options options = {
        .size = sizeof options,
        .max_active = (size_t)r->max_active,
        .total = r->limit == UINT64_MAX ? 0 : r->limit,
        .timeout = r->timeout,
        .retries = r->retries,
        .lifespan = r->lifespan,
        .unordered = true, /* order is made here, where results have their places anyhow */
        .stop_on_error = !r->return_errors,
        .in_turn = r->in_turn,
        .low_water = !r->lazy,
        .rows = true,
        .strict_order = r->call->use_state,
    };
    if (encoder_init(&r->encoder, r->pool->env.st, r->call->serializer) < 0 ||
        call_open_run(r->call, r->pool, &options, &r->run) < 0)
        return -1;
    run_feed_prepare(r);
    r->listed = true;
    r->next = r->pool->runs;
    if (r->next != NULL)
        r->next->previous = r;
    r->pool->runs = r;
    return 0;
}

/* ---- The passes ------------------------------------------------------------------------------------------------- */

/* One pass. Returns 1: look again; 0: all is said (ended, failed); -1 with an exception. */
static int pass(RunObject *r, double timeout)
{
    if (r->failure != NULL)
        return 0;
    int fed = run_feed(r);
    int got = fed < 0 ? -1 : run_drain(r);
    run_forget_arguments(r);
    if (r->close_wanted || r->closed) {
        close_run(r);
        return fed < 0 || got < 0 ? -1 : 0;
    }
    if (fed < 0 || got < 0)
        return -1;
    if (r->failure != NULL || r->ended || r->run == NULL)
        return 0;
    if (r->deferred != NULL && (!r->lazy || !PyObject_TypeCheck(r->deferred, (PyTypeObject *)PyExc_Exception)))
        return 0;
    r->looked = core_now();
    if (fed > 0 || got > 0) {
        double since = r->looked - r->released;
        if (since > LONGEST || (since > HOG && !core_is_only_thread())) {
            r->released = r->looked;
            run_flush(r);
            if (PyErr_CheckSignals() < 0)
                return -1;
            Py_BEGIN_ALLOW_THREADS
            Py_END_ALLOW_THREADS
        }
        return 1;
    }
    if (r->lazy && run_is_ready(r))
        return 1;
    int error = pool_wait(r->pool, r->run, timeout, r->wants_room);
    r->released = core_now();
    if (error == WAIT_RAISED)
        return -1;
    if (r->close_wanted || r->closed) {
        close_run(r);
        return 0;
    }
    if (error == 0 || error == TERCIO_EAGAIN || error == TERCIO_EINTERRUPTED || r->run == NULL)
        return 1;
    if (run_drain(r) < 0) /* what had arrived is handed out first */
        return -1;
    if (r->failure != NULL || (r->lazy && run_is_ready(r)))
        return 1;
    error_raise(r->pool->env.st, r->pool, error);
    return -1;
}

/* Raises what ended the map, if anything but its end did. Returns -1 then. */
static int say_why(RunObject *r)
{
    PyObject *exc = r->failure != NULL ? r->failure : r->deferred;
    if (exc != NULL) {
        PyObject *said = exc;
        if (r->lazy)
            said = core_no_stop(exc);
        else
            Py_INCREF(said);
        close_run(r);
        if (said != NULL)
            core_raise(said);
        Py_XDECREF(said);
        return -1;
    }
    if (r->terminated) {
        close_run(r);
        error_raise(r->pool->env.st, NULL, TERCIO_ECLOSED);
        return -1;
    }
    return 0;
}

static bool enter(RunObject *r)
{
    if (r->busy) {
        PyErr_SetString(PyExc_RuntimeError, "another thread is taking results from this map");
        return false;
    }
    if (r->opened && !r->closed && pool_is_foreign(r->pool)) {
        error_raise(r->pool->env.st, NULL, TERCIO_EFORKED);
        return false;
    }
    r->busy = true;
    return true;
}

static PyObject *hand_out(RunObject *r)
{
    window *w = &r->results;
    PyObject *v = window_take(w, w->base);
    w->base++;
    if (r->arrived <= w->base)
        r->ready_bytes = 0;
    else
        r->ready_bytes -= r->ready_bytes / (r->arrived - w->base + 1);
    return v;
}

static PyObject *run_iternext(PyObject *o)
{
    RunObject *r = (RunObject *)o;
    if (!enter(r))
        return NULL;
    PyObject *v = NULL;
    if (r->closed)
        goto done;
    if (!r->opened) {
        r->lazy = true;
        if (open_run(r) < 0) {
            close_run(r);
            goto done;
        }
    }
    if (run_is_ready(r)) {
        /* Between looks, handing out is all; but the workers must not run dry behind a slow consumer's back. */
        if (r->run == NULL || r->failure != NULL || core_now() - r->looked < FRESH) {
            v = hand_out(r);
            goto done;
        }
    }
    for (;;) {
        int more = pass(r, -1);
        if (more < 0) {
            PyObject *exc = core_take_exception();
            close_run(r);
            core_raise(exc);
            Py_XDECREF(exc);
            break;
        }
        if (run_is_ready(r)) {
            v = hand_out(r);
            break;
        }
        if (more == 0) {
            if (say_why(r) == 0)
                close_run(r);
            break;
        }
    }

done:
    r->busy = false;
    return v;
}

/* `anyway`: though nothing was finished since. The dashboard shows what the workers do meanwhile, too. */
static int report(RunObject *r, PyObject *progress, uint64_t *told, bool anyway)
{
    if (*told == r->arrived && !anyway)
        return 0;
    *told = r->arrived;
    run_flush(r);
    PyObject *done = PyObject_CallFunction(progress, "K", (unsigned long long)r->arrived);
    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}

static PyObject *run_collect(PyObject *o, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"progress", "interval", NULL};
    RunObject *r = (RunObject *)o;
    PyObject *progress = Py_None, *list = NULL;
    double interval = 0.1;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|Od:collect", names, &progress, &interval))
        return NULL;
    if (!enter(r))
        return NULL;
    if (r->opened || r->closed) {
        PyErr_SetString(PyExc_RuntimeError, "results of this map were taken already");
        goto done;
    }
    bool reports = progress != Py_None;
    uint64_t told = 0;
    double next = core_now() + interval;
    if (open_run(r) < 0)
        goto fail;
    window_prepare(&r->results, r->expected < r->limit ? r->expected : r->limit);
    for (;;) {
        double left = reports ? next - core_now() : -1;
        int more = pass(r, reports && left < 0 ? 0 : left);
        if (more < 0)
            goto fail;
        if (more == 0)
            break;
        if (reports && core_now() >= next) {
            if (report(r, progress, &told, true) < 0)
                goto fail;
            next = core_now() + interval;
        }
    }
    if (r->failure != NULL && reports && report(r, progress, &told, false) < 0)
        goto fail;
    if (say_why(r) < 0)
        goto done;
    if (r->closed) {
        PyErr_SetString(PyExc_RuntimeError, "the map was closed");
        goto done;
    }
    stop(r);
    if (reports && report(r, progress, &told, false) < 0)
        goto fail;
    list = window_list(&r->results, (size_t)r->arrived);

fail:
    if (list == NULL) {
        PyObject *exc = core_take_exception();
        close_run(r);
        if (exc != NULL)
            core_raise(exc);
        Py_XDECREF(exc);
    } else {
        close_run(r);
    }

done:
    r->busy = false;
    return list;
}

/* ---- The object ------------------------------------------------------------------------------------------------- */

RunObject *run_next_of_pool(RunObject *r)
{
    return r->next;
}

CallObject *run_call(RunObject *r)
{
    return r->call;
}

void run_pool_closes(RunObject *r)
{
    Py_INCREF(r);
    if (r->run != NULL && !r->ended) {
        if (!r->reading) {   /* else somebody is in the middle of a result: what lies behind it is lost */
            r->lazy = false; /* all of it, however much */
            if (r->failure == NULL && run_drain(r) < 0)
                PyErr_Clear();
            r->lazy = true;
        }
        if (!r->ended && r->failure == NULL)
            r->terminated = true;
    }
    stop(r);
    r->fed = true;
    Py_DECREF(r);
}

PyObject *run_new(PoolObject *pool, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"call",  "items",    "chunk_size",   "ordered", "in_turn",       "max_active", "limit",
                            "adapt", "lifespan", "task_timeout", "retries", "return_errors", NULL};
    core_state *st = pool->env.st;
    PyObject *call, *items, *limit_given = NULL;
    double chunk_size = 1, timeout = 0;
    int ordered = 1, in_turn = 0, adapt = 0, return_errors = 0;
    long long max_active = 0;
    unsigned lifespan = 0, retries = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!O|$dppLOpIdIp:map", names, st->call_type, &call, &items,
                                     &chunk_size, &ordered, &in_turn, &max_active, &limit_given, &adapt, &lifespan,
                                     &timeout, &retries, &return_errors))
        return NULL;
    if (!(chunk_size >= 1) || max_active < 0) {
        PyErr_SetString(PyExc_ValueError, "chunk_size must be at least 1, and max_active not negative");
        return NULL;
    }
    Py_ssize_t limit = -1;
    if (limit_given != NULL) {
        limit = PyNumber_AsSsize_t(limit_given, NULL); /* a length may be larger than a word: then there is none */
        if (limit == -1 && PyErr_Occurred())
            return NULL;
    }
    PyObject *iterator = PyObject_GetIter(items);
    if (iterator == NULL)
        return NULL;
    Py_ssize_t hint = PyObject_LengthHint(iterator, -1);
    if (hint < 0 && PyErr_Occurred()) { /* only a hint, but an interrupt is none */
        if (!PyErr_ExceptionMatches(PyExc_Exception)) {
            Py_DECREF(iterator);
            return NULL;
        }
        PyErr_Clear();
    }
    RunObject *r = (RunObject *)st->run_type->tp_alloc(st->run_type, 0);
    if (r == NULL) {
        Py_DECREF(iterator);
        return NULL;
    }
    Py_INCREF(pool);
    r->pool = pool;
    Py_INCREF(call);
    r->call = (CallObject *)call;
    r->items = iterator;
    r->expected = hint < 0 ? UINT64_MAX : (uint64_t)hint;
    r->chunk_size = chunk_size;
    r->max_active = (uint64_t)max_active;
    r->limit = limit < 0 || limit == PY_SSIZE_T_MAX ? UINT64_MAX : (uint64_t)limit;
    r->lifespan = lifespan;
    r->retries = retries;
    r->timeout = timeout;
    r->ordered = ordered != 0;
    r->in_turn = in_turn != 0;
    r->adapt = adapt != 0;
    r->return_errors = return_errors != 0;
    return (PyObject *)r;
}

static PyObject *run_close(PyObject *o, PyObject *Py_UNUSED(none))
{
    RunObject *r = (RunObject *)o;
    if (r->busy) { /* another thread is in it, or the user's iterator calls us: it closes on its way out */
        r->close_wanted = true;
        if (!pool_is_foreign(r->pool))
            tercio_run_interrupt(r->run);
    } else {
        close_run(r);
    }
    Py_RETURN_NONE;
}

static int run_traverse(PyObject *o, visitproc visit, void *arg)
{
    RunObject *r = (RunObject *)o;
    Py_VISIT(Py_TYPE(o));
    Py_VISIT(r->pool);
    Py_VISIT(r->call);
    Py_VISIT(r->items);
    Py_VISIT(r->deferred);
    Py_VISIT(r->failure);
    return 0;
}

static int run_clear(PyObject *o)
{
    RunObject *r = (RunObject *)o;
    PyObject *raised = core_take_exception();
    if (r->pool != NULL)
        close_run(r);
    encoder_fini(&r->encoder);
    Py_CLEAR(r->call);
    Py_CLEAR(r->pool);
    if (raised != NULL) {
        core_raise(raised);
        Py_DECREF(raised);
    }
    return 0;
}

static void run_dealloc(PyObject *o)
{
    PyTypeObject *type = Py_TYPE(o);
    PyObject_GC_UnTrack(o);
    run_clear(o);
    type->tp_free(o);
    Py_DECREF(type);
}

static PyObject *run_get(PyObject *o, void *which)
{
    RunObject *r = (RunObject *)o;
    switch (*(const char *)which) {
    case 'd': { /* answers that wait in the engine count, too; those that never got there (return_errors) do, here */
        uint64_t answered = r->run != NULL && !pool_is_foreign(r->pool) ? tercio_run_done(r->run) : 0;
        return PyLong_FromUnsignedLongLong(answered > r->arrived ? answered : r->arrived);
    }
    case 't':
        return PyLong_FromUnsignedLongLong(r->taken);
    default:
        return PyBool_FromLong(r->closed);
    }
}

static PyGetSetDef run_getset[] = {
    {"done", run_get, NULL, "Tasks finished so far.", "d"},
    {"taken", run_get, NULL, "Items taken from the iterator.", "t"},
    {"finished", run_get, NULL, "Whether nothing more will come.", "f"},
    {NULL, NULL, NULL, NULL, NULL},
};
static PyMethodDef run_methods[] = {
    {"collect", (PyCFunction)(void (*)(void))run_collect, METH_VARARGS | METH_KEYWORDS, "All results, as a list."},
    {"close", run_close, METH_NOARGS, "Stops its work at once."},
    {NULL, NULL, 0, NULL},
};
static PyType_Slot run_slots[] = {
    {Py_tp_new, core_no_new},       {Py_tp_doc, "The results of one map."},
    {Py_tp_traverse, run_traverse}, {Py_tp_clear, run_clear},
    {Py_tp_dealloc, run_dealloc},   {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, run_iternext}, {Py_tp_methods, run_methods},
    {Py_tp_getset, run_getset},     {0, NULL},
};
PyType_Spec run_spec = {
    .name = "tercio._core.MapRun",
    .basicsize = sizeof(RunObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = run_slots,
};
