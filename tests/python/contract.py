"""What users can rely on, line by line. Tests name the lines they hold: ``@pytest.mark.contract("3 lifespan")``.

Each line: its name, where it holds, and what it says. Where: ``all`` start methods, ``process`` (all but threading),
``fresh`` (spawn and forkserver), one method, or ``any`` where the start method can't matter.
"""

from __future__ import annotations

METHODS = ("fork", "spawn", "forkserver", "threading")
GROUPS = {"all": METHODS, "any": METHODS, "process": METHODS[:3], "fresh": METHODS[1:3]}

LINES = [
    # 1. Start methods
    ("1 names", "any", "unknown method: ValueError that names those there are; DEFAULT_START_METHOD, FORK_AVAILABLE"),
    ("1 copy", "fork", "a worker is a copy of the parent at that moment"),
    ("1 fresh", "fresh", "globals have their import-time value; what only the parent has is a NameError, and no harm"),
    ("1 same", "threading", "arguments, results and shared objects are passed as they are"),
    ("1 server", "forkserver", "one server, started on first use, kept for later pools"),
    ("1 preload", "forkserver", "preload=[...] before the server starts; too late is an error that says so"),
    ("1 typed", "all", "a function typed into a shell works"),
    ("1 typed, no cloudpickle", "fresh", "... and without cloudpickle the error names the cure"),
    ("1 shared buffers", "process", "large buffers are there once; who writes gets a copy of those pages"),
    ("1 descriptors", "process", "a worker gets nothing open that it doesn't need"),
    # 2. WorkerPool
    ("2 constructor", "any", "parameters by position, in order, with their defaults"),
    ("2 setters", "all", "usable between calls; a change restarts kept workers"),
    ("2 start", "all", "workers start at the first call, all n_jobs of them"),
    ("2 keep_alive", "all", "kept workers are reused, whatever function and parameters come"),
    ("2 with", "all", "leaving the block terminates"),
    ("2 stop_and_join", "all", "waits for work, runs exit functions, collects their results"),
    ("2 terminate", "all", "interrupts what runs; no process is left"),
    ("2 left behind", "threading", "a thread that can't be interrupted stays, and a warning says so"),
    ("2 arguments", "all", "worker id, shared objects, worker state, then the task's own"),
    ("2 daemon", "process", "daemons have no children (AssertionError); daemon=False may"),
    ("2 nested", "all", "pools of any method in pools of any method, to any depth, with errors inside"),
    ("2 cpu_ids", "all", "each worker is pinned"),
    ("2 cpu_ids errors", "any", "wrong count, negative, too large: ValueError; wrong type: TypeError"),
    ("2 serializer", "all", "use_dill, serializer=: lambdas, closures, local classes there and back"),
    ("2 serializer missing", "any", "ImportError that names the extra"),
    ("2 inheritance", "all", "locks, values and manager's proxies inside shared_objects"),
    ("2 wrong context", "fresh", "a lock of another context is an error that names the right one"),
    ("2 process", "process", "current_process, parent_process and active_children are right"),
    ("2 SIGINT", "all", "goes to the parent alone: KeyboardInterrupt once, nothing left"),
    ("2 SIGTERM", "process", "SIGTERM or SIGHUP to a worker fails what it runs, and says so"),
    # 3. The map family
    ("3 unpacking", "all", "dicts are keywords, iterables positional, str, bytes, arrays and others the one argument"),
    ("3 single arguments", "all", "make_single_arguments passes elements whole"),
    ("3 order", "all", "map and imap keep order, the others give results as they come"),
    ("3 lazy", "all", "imap* start on first use; closing or dropping stops their work"),
    ("3 iterable_len", "all", "limits what is taken"),
    ("3 chunk_size", "all", "chunk_size (also fractional), else n_splits, else n_jobs * 64"),
    ("3 unknown length", "all", "RuntimeWarning, and chunks that adapt"),
    ("3 max_tasks_active", "all", "never more tasks taken and not finished; results ahead of a slow one are bounded"),
    ("3 lifespan", "all", "a worker is replaced after its k-th task; exit results and ids are kept"),
    ("3 order_tasks", "all", "chunk i goes to worker i mod n_jobs, in each call"),
    ("3 numpy", "all", "pieces along the first axis; array results are joined"),
    ("3 init and exit", "all", "once a worker; not in one that did no task"),
    ("3 task_timeout", "all", "TimeoutError (also multiprocessing's) with worker, kind and limit"),
    ("3 init_timeout", "all", "an init that runs out stops the pool"),
    ("3 exit_timeout", "all", "an exit that runs out is an error of the end"),
    ("3 stuck in C", "process", "killed with its worker after the grace, and the worker replaced"),
    ("3 parameters", "any", "wrong type TypeError, out of range ValueError, by name, before any worker starts"),
    ("3 one map", "all", "a map beside a map: RuntimeError at once; the running one goes on"),
    ("3 iterable raises", "all", "its exception comes out; the pool is usable"),
    ("3 usable", "all", "the pool is usable after any failed call"),
    # 4. The apply family
    ("4 apply", "all", "waits for the result"),
    ("4 AsyncResult", "all", "ready, successful, wait, get; TimeoutError when time runs out; get again"),
    ("4 callbacks", "all", "in the parent, before get returns, also if nobody waits"),
    ("4 callback raises", "all", "is reported and stops nothing"),
    ("4 isolation", "all", "a failed task doesn't touch the others"),
    ("4 args", "any", "unpacked if iterable and no str, bytes or array"),
    ("4 beside a lazy map", "all", "apply works while a lazy map runs"),
    ("4 terminated", "all", "an AsyncResult of a terminated pool raises at once"),
    ("4 cancel", "all", "stops a task, queued or running"),
    ("4 await", "all", "an AsyncResult can be awaited"),
    # 5. Exceptions
    ("5 original", "all", "type, args and attributes; a cause with traceback, worker and arguments"),
    ("5 built-in", "all", "errno, fields, groups, notes, chains, custom constructors"),
    ("5 unpicklable exception", "process", "CannotPickleExceptionError with repr and traceback"),
    ("5 unpicklable data", "process", "results and arguments: an error that names function and argument"),
    ("5 exits", "all", "SystemExit and KeyboardInterrupt of a task are its errors"),
    ("5 died", "process", "WorkerDiedError with its attributes; fails a map, one task of apply"),
    ("5 retry", "process", "on_worker_death='retry' goes on with a new worker, max_retries times"),
    ("5 on_error", "all", "'return' puts the exception in the item's place"),
    ("5 keyword-only", "any", "on_worker_death, max_retries, on_error, serializer"),
    # 10. Small print
    ("10 spread", "all", "each worker gets its first chunk before any gets ahead"),
    ("10 kept init", "all", "kept workers don't run init again; a change warns; the last exit function runs"),
    ("10 first apply", "all", "the first apply sets init and exit for the pool's life"),
    ("10 lazy terminated", "all", "RuntimeError at the next result; what had arrived comes first"),
    ("10 init raises", "all", "an init or exit function that raises fails the call with its exception"),
    ("10 keywords", "all", "a missing or unknown keyword is the function's own TypeError"),
    ("10 pickled pool", "any", "a pool can't be pickled or used in a child: a clear error"),
    ("10 forked pool", "process", "a copy that the application's fork made does nothing"),
    ("10 n_jobs", "any", "None and 0: all CPUs; negative ValueError; not an int TypeError"),
    ("10 output", "process", "standard output of workers: nothing lost, nothing twice"),
    ("10 import", "any", "nothing happens at import but definitions"),
    ("10 ctx", "all", "pool.ctx is the multiprocessing context that fits"),
    ("10 texts", "all", "texts that users look for"),
    ("10 huge length", "all", "a length may be larger than a machine word"),
    ("10 exit results", "all", "afresh when workers start; under keep_alive they accumulate"),
    ("10 children", "process", "a killed worker's own children go with it"),
    ("10 environment", "fresh", "environment and directory as they are when the worker starts"),
    ("10 logging", "all", "enable_worker_logging: records and warnings of workers reach the parent's handlers"),
    ("10 fork and threads", "fork", "warns once, naming forkserver"),
]
NAMES = {name: where for name, where, _ in LINES}


def methods_of(name: str) -> tuple[str, ...]:
    """The start methods that a line speaks of."""
    where = NAMES[name]
    return GROUPS.get(where, (where,))
