/* SPDX-License-Identifier: MIT
 *
 * Threads of the engine come to the interpreter, and go.
 *
 * To make a thread's state CPython takes the lock of its list of states, without the GIL. Before 3.12 a child that is
 * forked in that moment finds the lock held by a thread that it doesn't have, and waits for ever before it runs its
 * first line (PyOS_AfterFork_Child goes through the list; from 3.12 on PyOS_BeforeFork takes the lock). So there is a
 * gate: our threads make their states inside, and forks of this process, by us or by os.fork, wait until nobody is.
 * It is a few instructions long, and none of them needs the GIL or another lock of ours.
 */
#include "core.h"

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#if PY_VERSION_HEX < 0x030C0000
static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;

static void close_gate(void)
{
    pthread_mutex_lock(&gate);
}

static void open_gate(void)
{
    pthread_mutex_unlock(&gate);
}

/* The child has the one thread that closed it. */
static void open_gate_of_child(void)
{
    pthread_mutex_init(&gate, NULL);
}

static void watch_forks(void)
{
    (void)pthread_atfork(close_gate, open_gate, open_gate_of_child);
}

void attach_init(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, watch_forks);
}
#else
static void close_gate(void) {}

static void open_gate(void) {}

void attach_init(void) {}
#endif

static _Thread_local bool is_engines; /* this thread has a state that attach_new made */

PyThreadState *attach_new(PyInterpreterState *interp)
{
    close_gate();
    PyThreadState *ts = PyThreadState_New(interp);
    open_gate();
    if (ts != NULL) {
        is_engines = true;
        PyEval_RestoreThread(ts);
    }
    return ts;
}

void attach_end(PyThreadState *ts)
{
    is_engines = false;
    PyThreadState_Clear(ts);
    PyThreadState_DeleteCurrent();
}

/* The state that this thread has let go of for a call of the engine's; PyGILState knows one state a thread, which in a
 * sub-interpreter is that of another interpreter. */
static _Thread_local PyThreadState *let_go;

PyThreadState *attach_let_go(void)
{
    return let_go = PyEval_SaveThread();
}

void attach_again(PyThreadState *ts)
{
    let_go = NULL;
    PyEval_RestoreThread(ts);
}

attachment attach(PyInterpreterState *interp)
{
    attachment now = {.made = NULL};
    PyThreadState *known = PyGILState_GetThisThreadState();
    if (known != NULL && PyThreadState_GetInterpreter(known) == interp) {
        now.is_ensured = true;
        now.gil = PyGILState_Ensure();
        return now;
    }
    if (known != NULL) { /* without a state let go, it holds the GIL */
        now.again = let_go;
        if (now.again != NULL)
            attach_again(now.again);
        return now;
    }
    now.made = attach_new(interp);
    if (now.made == NULL)
        Py_FatalError("tercio: no memory for the state of a thread");
    return now;
}

void detach(attachment now)
{
    if (now.made != NULL)
        attach_end(now.made);
    else if (now.is_ensured)
        PyGILState_Release(now.gil);
    else if (now.again != NULL)
        (void)attach_let_go();
}

/* Whether this thread has work at the interpreter's end, or this isn't the end. */
static bool goes_on(const core_state *st)
{
    return st->ending_in == 0 || st->ending_in == PyThread_get_thread_ident() || is_engines;
}

void attach_stay_at_end(core_state *st)
{
    if (goes_on(st))
        return;
    PyObject *raised = core_take_exception();
    PyObject *function = core_function(st, FN_STAY_AT_END);
    PyObject *done = function == NULL ? NULL : PyObject_CallNoArgs(function);
    Py_XDECREF(done);
    PyErr_Clear();
    if (raised != NULL)
        core_raise(raised);
    Py_XDECREF(raised);
}

PyObject *attach_stay(PyObject *module, PyObject *Py_UNUSED(none))
{
    sigset_t all;
    if (goes_on(PyModule_GetState(module)))
        Py_RETURN_NONE;
    sigfillset(&all); /* a signal for the process is for a thread that lives */
    pthread_sigmask(SIG_SETMASK, &all, NULL);
    (void)PyEval_SaveThread();
    for (;;)
        (void)pause();
}
