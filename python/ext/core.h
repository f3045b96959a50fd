/* SPDX-License-Identifier: MIT
 *
 * What the rooms of tercio._core share: the module's state, the objects' structs, and who offers what.
 *
 * Rules of the house:
 *   - No object lives in a static: everything hangs on core_state, one for each module object (each interpreter).
 *   - An engine call that may block is made with the GIL released, and no Python object is touched without it.
 *     tercio_push, tercio_next(…, 0), tercio_release, tercio_run_* never block: they are called with the GIL held.
 *   - The engine calls the host's functions under none of its locks, so those may take the GIL.
 *   - A reference that travels through the engine (threading) has one owner at each time: the sender until
 *     tercio_push or tercio_commit has taken it, then the message, then the reader; host->drop for the unread.
 */
#ifndef TERCIO_EXT_CORE_H
#define TERCIO_EXT_CORE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#include "tercio.h"

/* Python functions of the package that are called from here, looked up at first use. */
enum {
    FN_ERROR_DUMP,
    FN_ERROR_LOAD,
    FN_ERROR_NOT_STARTED,
    FN_ERROR_DIED,
    FN_ERROR_TIMED_OUT,
    FN_ERROR_NOT_PICKLABLE,
    FN_ERROR_TIMEOUT,
    FN_ERROR_DRESS,
    FN_DUMP_CALL,
    FN_LOAD_CALL,
    FN_WORKER_ENTER,
    FN_WORKER_TRACE,
    FN_WORKER_LIVE,
    FN_WORKER_LEAVE,
    FN_LET_GO_OF_IMPORTS,
    FN_PICKLE_DUMPS,
    FN_PICKLE_LOADS,
    FN_DILL_DUMPS,
    FN_DILL_LOADS,
    FN_CLOUDPICKLE_DUMPS,
    FN_CLOUDPICKLE_LOADS,
    FN_GC_FREEZE,
    FN_SIGNAL,
    FN_GETSIGNAL,
    FN_AT_FORK,
    FN_SET_WAKEUP_FD,
    FN_SET_AFFINITY,
    FN_THREAD_ENTER,
    FN_THREAD_LEAVE,
    FN_CANCELLED_ERROR,
    FN_RUNNING_LOOP,
    FN_ARGUMENTS_TEXT,
    FN_STAY_AT_END,
    FN_COUNT
};

enum { CORE_SIGNALS = 3 }; /* SIGTERM, SIGHUP, CORE_SOFT_SIGNAL */

enum { SERIALIZER_PICKLE, SERIALIZER_DILL, SERIALIZER_CLOUDPICKLE, SERIALIZER_COUNT };

struct worker;

typedef struct core_state {
    PyObject *module; /* borrowed: the module owns this */
    PyTypeObject *call_type, *server_type, *pool_type, *run_type, *async_type, *block_type, *collector_type;
    PyObject *interrupted; /* BaseException that ends a task softly; never seen by users who don't look for it */
    PyObject *functions[FN_COUNT];
    PyObject *five;               /* the pickle protocol */
    PyObject *kw_buffer_callback; /* ("buffer_callback",) */
    PyObject *kw_buffers;         /* ("buffers",) */
    uint64_t next_call_id;
    struct worker *process_worker;  /* this process is that worker; for signal handlers */
    PyObject *former[CORE_SIGNALS]; /* Python's handlers of the signals that a worker takes; NULL: it has not */
    bool watches_forks;
    struct worker *thread_workers; /* of all pools, linked */
    PyObject *main;                /* sys.modules["__mp_main__"], as the last pool set it that needed it */
    unsigned long ending_in;       /* the interpreter is at its end, in this thread; 0: it isn't */
} core_state;

/* ---- Threads of the engine (py_attach.c) ---------------------------------------------------------------------------- */

typedef struct {
    PyThreadState *made;  /* NULL: the thread had a state before */
    PyThreadState *again; /* ... which it had let go of by attach_let_go; NULL: it had not, or is_ensured */
    PyGILState_STATE gil;
    bool is_ensured;
} attachment;

void attach_init(void);
/* For any thread, whether the interpreter knows it or not, as PyGILState_Ensure and PyGILState_Release. */
attachment attach(PyInterpreterState *);
void detach(attachment);
/* As PyEval_SaveThread and PyEval_RestoreThread, around a call of the engine's that may call back. */
PyThreadState *attach_let_go(void);
void attach_again(PyThreadState *);
/* For a thread that the interpreter doesn't know. Returns: its new state, current and with the GIL; NULL: no memory. */
PyThreadState *attach_new(PyInterpreterState *);
void attach_end(PyThreadState *);
/* At the interpreter's end a daemon thread that has lost its pool must not go on: it would raise what is nobody's fault.
 * This never returns to such a thread. The caller holds the GIL and nothing else; an exception that is set stays. */
void attach_stay_at_end(core_state *);
/* Does so for any thread but the one that brings the end, and those that the engine started: others wait for these. */
PyObject *attach_stay(PyObject *module, PyObject *none);

/* ---- Call (py_call.c) ------------------------------------------------------------------------------------------- */

typedef struct {
    PyObject_HEAD
    core_state *st;
    PyObject *func, *worker_init, *worker_exit; /* the last two may be NULL */
    PyObject *packed;                           /* list of bytes-like: what dump_call gave, for packed_method */
    tercio_method packed_method;
    uint64_t id; /* unique in this process and those forked from it */
    int serializer;
    bool pass_worker_id, pass_shared, use_state, unpack;
} CallObject;

typedef struct pool_object PoolObject;

/* Opens an engine run for the call: sends the context by number where workers have it, else pickled. Returns: 0, or
 * -1 with an exception. */
int call_open_run(CallObject *, PoolObject *, const tercio_map_options *, tercio_run **);
/* In a worker: the call that a context stands for. Returns: a new reference, or NULL with an exception. */
CallObject *call_from_context(core_state *, PoolObject *, tercio_call *, const tercio_chunk *);
PyObject *call_name(CallObject *); /* of the function, for people; new reference, never fails with an exception */
bool call_is_array(PyObject *);    /* a numpy array, told without importing numpy */
/* The contract's unpacking rule. Returns 0 with new references *args (a tuple) and *kwargs (a dict or NULL). */
int call_unpack(CallObject *, PyObject *item, bool explicit_arguments, PyObject **args, PyObject **kwargs);
int call_serializer(PyObject *name); /* SERIALIZER_..., or -1 with an exception */

/* ---- Pool (py_pool.c) ------------------------------------------------------------------------------------------- */

typedef struct run_object RunObject;
typedef struct async_object AsyncObject;
typedef struct apply_run apply_run;
typedef struct encoder encoder;

/* What the engine hands to the host's callbacks as `user`: part of a Pool, or of worker_main's frame. */
typedef struct {
    core_state *st;
    PyInterpreterState *interp;
    PoolObject *pool; /* NULL in a process that worker_main runs */
    attachment forks; /* between before_fork and after_fork */
    sigset_t signals; /* the mask of the thread that opened the pool */
} host_env;

typedef struct {
    AsyncObject *result; /* strong; NULL: free */
    uint32_t generation;
    uint32_t next_free;
} async_slot;

struct pool_object {
    PyObject_HEAD
    host_env env;
    tercio_pool *engine; /* NULL: finished or terminated */
    tercio_method method;
    unsigned n_workers;
    long pid;            /* of the process that owns it ... */
    uint32_t generation; /* ... and its tercio_fork_generation: to read it is no system call */
    double grace, init_timeout, exit_timeout;
    size_t max_pending; /* tasks applied and not finished; 0: the engine's default */
    bool daemon, observe;
    size_t n_left;            /* threads that could not be ended */
    PyObject *main;           /* what results mean by __mp_main__; NULL: fresh workers have no part in it */
    bool opened;              /* what is registered from here on isn't inherited by fork */
    bool closing;             /* no engine call may be begun any more */
    bool finished;            /* all work is done and the workers are gone: whoever else waits for that has it, too */
    bool close_later;         /* asked for in the supervisor's thread: whoever comes next does it */
    unsigned long supervisor; /* the supervisor's thread while it is in async_notify; else 0 */
    CallObject *first_call;   /* strong, may be NULL: workers inherit it */
    PyObject *shared;         /* strong, may be NULL */
    PyObject *server;         /* strong, may be NULL: keeps the forkserver open */
    PyObject *cpu_ids;        /* tuple of tuples, or NULL */
    char **argv;              /* of workers; the engine borrows it for replacements */
    PyObject *argv_bytes;     /* what argv points to */
    tercio_bytes pipe[2];     /* around the argument, where workers find it in a pipe */
    PyObject *pipe_bytes;     /* a tuple of bytes, what pipe points to; NULL: there is none */
    PyObject *last_stats;     /* of a pool that was finished; may be NULL */
    PyObject *exit_results;   /* list */
    PyObject *exit_error;     /* the first exception of an exit function, or NULL */
    RunObject *runs;          /* open maps, linked, borrowed: each takes itself out */
    apply_run *applies;       /* owned */
    encoder *spare;           /* for apply; taken out while it is used */
    async_slot *slots;
    uint32_t n_slots, free_slot;
    size_t n_pending;
    /* Threads that are inside the engine without the GIL: nobody closes it under them. */
    pthread_mutex_t gate;
    pthread_cond_t gate_open;
    unsigned inside;
};

/* Server (py_server.c) */
typedef struct {
    PyObject_HEAD
    tercio_server *server;
    int server_pid;
} ServerObject;

/* py_open.c: tp_new of Pool. */
PyObject *pool_new(PyTypeObject *, PyObject *args, PyObject *kwargs);
/* A sequence of paths as C has it: an array, for PyMem_Free, over the bytes that *keep holds, with NULL at its end. NULL
 * with an exception. */
char **argv_of(PyObject *given, PyObject **keep);
/* A tuple of two bytes as tercio_options.worker_pipe has it, borrowed from it. -1 with an exception. */
int pipe_of(PyObject *given, tercio_bytes pipe[2]);

/* Has __mp_main__ mean the module that was the program's main one when the pool's fresh workers were started: before
 * their pickles are read. One program after another may be the main one in a process (IPython's %run, runpy). */
void pool_set_main(const PoolObject *); /* py_open.c */
static inline void pool_mean_main(const PoolObject *pool)
{
    if (pool->main != NULL && pool->main != pool->env.st->main)
        pool_set_main(pool);
}

/* Ends the engine's pool; with the GIL, which it lets go meanwhile. What was raised before stays raised. */
void pool_close(PoolObject *);
/* True, with an exception set, when the pool can't be used: closed, or of another process. */
bool pool_unusable(PoolObject *);
bool pool_is_foreign(const PoolObject *); /* inherited by a fork that isn't a worker of it */
/* Waits in the engine without the GIL and without sleeping through signals. Returns: 0, TERCIO_EAGAIN,
 * TERCIO_EINTERRUPTED (look again), other errors of tercio_wait; -1000 with an exception (of a signal handler). */
#define WAIT_RAISED (-1000)
int pool_wait(PoolObject *, tercio_run *, double timeout, bool or_room);
/* The same, until one more task may be applied. */
int pool_wait_room(PoolObject *);
void pool_kick(PoolObject *); /* whoever waits looks up */
int pool_note_exit(PoolObject *, tercio_run *,
                   const tercio_result *); /* keeps what an exit function left; -1 with an exception */

/* Worker threads of that pool that have not come to their end, though the pool has: they forget it. */
size_t worker_leave_threads(core_state *, const PoolObject *);
/* Ends the worker threads' tasks of that pool: all (index UINT64_MAX), or the one that runs that item of that call. */
void worker_interrupt_threads(core_state *, PoolObject *, CallObject *, uint64_t index);
/* ... or those that the engine wants no more. */
void worker_interrupt_unwanted(core_state *, PoolObject *);
/* Around a wait in a pool, for a thread that may be a worker itself. Both with the GIL; `worker_waits` -1: interrupted,
 * with the exception set, and there shall be no wait. `worker_waited`: the same, afterwards. */
int worker_waits(core_state *, PoolObject *, tercio_run *); /* NULL: for the pool's end */
int worker_waited(core_state *);
/* This thread is a worker of a pool of threads. It takes no signals while it waits: those are the main thread's, which
 * holds them back for a moment before it sleeps, and would sleep through one that is taken here meanwhile. */
bool worker_is_here(core_state *);
/* It is one of that pool: what it waits for may be behind what it runs. */
bool worker_is_of(core_state *, const PoolObject *);

/* Imports what a forked worker calls, before the first fork: not in each child, which would copy every page that it
 * counts a reference on. -1: with an exception, which may be that of a signal's handler. */
int worker_prepare_fork(core_state *);

/* ---- MapRun (py_run.c) ------------------------------------------------------------------------------------------ */

PyObject *run_new(PoolObject *, PyObject *args, PyObject *kwargs);
void run_pool_closes(RunObject *); /* takes out what has arrived; the engine goes away now */
RunObject *run_next_of_pool(RunObject *);
CallObject *run_call(RunObject *); /* borrowed */

/* ---- AsyncResult (py_async.c) ----------------------------------------------------------------------------------- */

PyObject *async_apply(PoolObject *, PyObject *args, PyObject *kwargs, bool wait);
int async_wait_idle(PoolObject *); /* 0, or -1 with an exception */
void async_notify(PoolObject *);
void async_pool_closes(PoolObject *, bool drain); /* delivers what is there, fails the rest; runs are closed */
void async_free_runs(PoolObject *);
CallObject *async_find_call(PoolObject *, uint64_t id); /* borrowed, or NULL */
int async_traverse_pool(PoolObject *, visitproc, void *);

/* ---- Buffers (py_buffer.c) -------------------------------------------------------------------------------------- */

/* A writable buffer over a view, which it owns from now on (also on failure). */
PyObject *block_new(core_state *, tercio_view *);

/* ---- Errors (py_error.c) ---------------------------------------------------------------------------------------- */

PyObject *core_function(core_state *, int which); /* borrowed; NULL with an exception */
PyObject *core_take_exception(void);              /* what is raised, with its traceback; new reference, or NULL */
void core_raise(PyObject *exc);                   /* raises it; the reference stays the caller's */
/* The same for where a StopIteration would mean an end: a RuntimeError with it as its cause, as generators have it.
 * A new reference; NULL with an exception. */
PyObject *core_no_stop(PyObject *exc);
/* Raises what an engine's error code stands for. pool may be NULL. Returns NULL. */
PyObject *error_raise(core_state *, PoolObject *, int error);
/* The exception that stands for a failed result; item may be NULL. Never NULL unless memory is out. */
PyObject *error_of_result(PoolObject *, tercio_run *, CallObject *, const tercio_result *, PyObject *item,
                          bool explicit_arguments, double timeout);
/* An exception for what is raised now, if that is a failure to pickle: names function and argument. */
PyObject *error_not_picklable(core_state *, const char *what, CallObject *, uint64_t index);
void error_unraisable(PyObject *where);

/* ---- The worker's side (py_worker.c) ---------------------------------------------------------------------------- */

/* The number by which the engine asks a worker's main thread to look up; a real-time signal of our own. */
#define CORE_SOFT_SIGNAL (SIGRTMIN + 8)
/* The number by which a worker that crashes has faulthandler write its stack. */
#define CORE_STACK_SIGNAL (SIGRTMIN + 9)

/* py_crash.c: catches what a crash raises in this process, a worker; the argument is the descriptor for its stack. */
PyObject *crash_catch(PyObject *module, PyObject *args);

extern const tercio_host core_host;
PyObject *worker_main(PyObject *module, PyObject *argument);
/* Answers of threads are references; everything else is bytes. Returns the object, now the caller's; NULL: bytes. */
PyObject *worker_handed_over(const PoolObject *, const tercio_result *);
/* What fresh workers get: the parameters that they need, and the parts given to Pool, as pieces over the parts' own
 * memory, which the engine copies once. */
typedef struct {
    Py_buffer *views;
    Py_ssize_t n_views;
    PyObject *packed;
    tercio_bytes *pieces;
    size_t n_pieces;
} preparation;
int preparation_make(preparation *, PoolObject *, PyObject *parts);
void preparation_clear(preparation *);

/* ---- Types ------------------------------------------------------------------------------------------------------ */

extern PyType_Spec call_spec, server_spec, pool_spec, run_spec, async_spec, block_spec, collector_spec;

static inline core_state *core_of_type(PyTypeObject *type)
{
    return (core_state *)PyType_GetModuleState(type);
}

/* For types that only this module makes. */
PyObject *core_no_new(PyTypeObject *, PyObject *, PyObject *);

/* True where nobody else can want the GIL. Only our own state is followed: another one may be gone meanwhile. */
static inline bool core_is_only_thread(void)
{
    PyThreadState *own = PyThreadState_Get();
    return PyInterpreterState_ThreadHead(PyInterpreterState_Get()) == own && PyThreadState_Next(own) == NULL;
}

static inline double core_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

#endif
