"""What runs around a worker process's work and at its end, as in a process of multiprocessing.

Functions of atexit and finalizers that a fork copied belong to the parent, which runs them itself; a worker runs those
that were registered in it. Tools that measure or trace the processes of multiprocessing patch two of its functions,
``BaseProcess._bootstrap`` and ``spawn.get_preparation_data``; where the parent has them patched, workers go through
both. Nothing of that imports multiprocessing in a worker that doesn't need it.
"""

from __future__ import annotations

import _thread
import os
import sys

from tercio._modules import loaded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class _Parent:
    """What a fork is compared with; the one object of this module that changes."""

    coverage: Any = None  # the measurement that ran in this process when it was about to fork


_parent = _Parent()


# ---- In the parent ----------------------------------------------------------------------------------------------


def prepare_fork() -> None:
    """Note what a forked worker has to tell from its own, and import here what it would have to."""
    import atexit  # noqa: F401

    _parent.coverage = _running_coverage()


def additions() -> bytes | None:
    """What patches of multiprocessing add to a fresh process's preparation data, pickled; None for nothing."""
    spawn: Any = loaded("multiprocessing.spawn")
    if spawn is None or not _is_patched(spawn.get_preparation_data, spawn):
        return None
    from multiprocessing import context
    from pickle import dumps

    default: Any = context._default_context
    actual = default._actual_context
    try:
        data = spawn.get_preparation_data("Worker")
    finally:
        default._actual_context = actual  # to ask for the start method would have fixed it
    added = {name: value for name, value in data.items() if name not in _KNOWN}
    return dumps(added) if added else None


_KNOWN = {
    "authkey",
    "dir",
    "init_main_from_name",
    "init_main_from_path",
    "log_level",
    "log_to_stderr",
    "name",
    "orig_dir",
    "start_method",
    "sys_argv",
    "sys_path",
}


def _is_patched(function: Any, module: Any) -> bool:
    """Whether something else stands where `module` had a function of its own."""
    return getattr(function, "__globals__", None) is not module.__dict__


# ---- At a worker's begin ----------------------------------------------------------------------------------------


def begin_fork() -> None:
    """Leave to the parent, or to the server, what it registered for its own end."""
    import atexit

    atexit._clear()
    finalize: Any = getattr(loaded("weakref"), "finalize", None)
    if getattr(finalize, "_registered_with_atexit", False):
        for inherited in list(finalize._registry):
            inherited.atexit = False
        atexit.register(finalize._exitfunc)  # for those that the worker will make
    coverage = _running_coverage()
    if coverage is None:
        return
    if coverage is not _parent.coverage:  # a hook on fork has started it anew, and its registration is gone
        atexit.register(_save, coverage)
    elif _ASKS_FOR_COVERAGE & os.environ.keys() and _patched_bootstrap() is None:
        _safely(lambda: _measure_anew(coverage))


_ASKS_FOR_COVERAGE = {"COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG"}


def trace_thread() -> None:
    """Set in this thread what ``threading.settrace`` and ``threading.setprofile`` want in each, as threading does."""
    threading: Any = loaded("threading")
    trace = getattr(threading, "_trace_hook", None)
    profile = getattr(threading, "_profile_hook", None)
    if trace is not None:
        sys.settrace(trace)
    if profile is not None:
        sys.setprofile(profile)


def take_additions(pickled: bytes | None) -> None:
    """Apply in a fresh worker what patches of multiprocessing had added."""
    if pickled is not None:
        from pickle import loads

        loads(pickled)


def _running_coverage() -> Any:
    """The measurement of coverage.py that was started last and runs in this process."""
    coverage: Any = loaded("coverage")
    try:
        return coverage.Coverage.current()
    except AttributeError:  # it isn't imported, or not yet whole, or too old
        return None


def _measure_anew(coverage: Any) -> None:
    # The environment asks for a measurement of each process. In a fresh one coverage's own start-up file begins it; a
    # fork has a copy of the parent's, which belongs to the parent.
    import coverage as package

    coverage.stop()
    package.process_startup.__dict__.pop("coverage", None)  # where it notes that this process has one
    package.process_startup()


def _save(coverage: Any) -> None:
    coverage.stop()
    coverage.save()


# ---- Around its work --------------------------------------------------------------------------------------------


def live(rest: Callable[[], None]) -> None:
    """Run the rest of a worker's life, inside of what others have put around a process's.

    Parameters
    ----------
    rest : callable
        Runs the worker up to its goodbye. It does so once: another call does nothing.
    """
    bootstrap = _patched_bootstrap()
    if bootstrap is None:
        rest()
    else:
        _safely(lambda: _as_process(bootstrap, rest))
        rest()  # if what was patched in has not come to it
    if not isinstance(os._exit, type(len)):  # processes of multiprocessing end by it
        _safely(_flush)
        os._exit(0)


def _patched_bootstrap() -> Any:
    process: Any = loaded("multiprocessing.process")
    if process is None:
        return None
    bootstrap = process.BaseProcess._bootstrap
    return bootstrap if _is_patched(bootstrap, process) else None


def _as_process(bootstrap: Any, rest: Callable[[], None]) -> None:
    from multiprocessing import process as module

    process: Any = module
    names = ("_parent_process", "_children", "_process_counter")
    known = {name: getattr(process, name) for name in names}
    stdin, sys.stdin = sys.stdin, None  # it is the worker's own already, and would be closed

    def run() -> None:
        sys.stdin = stdin
        vars(process).update(known)
        rest()

    current = process.current_process()
    current._start_method = None
    current.run = run
    try:
        bootstrap(current)
    finally:
        sys.stdin = stdin


# ---- At its end -------------------------------------------------------------------------------------------------


def leave() -> None:
    """What an interpreter does at its end, as far as a worker shall. Never raises."""
    _safely(_join_threads)
    _safely(_run_atexit)
    _safely(_end_pools)
    _safely(_end_multiprocessing)
    _safely(_flush)


def _safely(step: Any) -> None:
    try:
        step()
    except BaseException as error:
        try:
            import traceback

            sys.stderr.write("Exception ignored at the begin or the end of a worker:\n")
            traceback.print_exception(type(error), error, error.__traceback__)
        except BaseException:
            pass  # without a place to tell it


def _join_threads() -> None:
    threading: Any = loaded("threading")
    if threading is None:
        return
    main = threading.main_thread()
    if getattr(main, "_tstate_lock", main) is None:
        # Until 3.12: forked in a thread that threading didn't start (such as a worker's), which it takes for the main
        # one and wants to have a lock that is held.
        main._tstate_lock = _thread.allocate_lock()
        main._tstate_lock.acquire()
    threading._shutdown()


def _end_pools() -> None:
    shutdown = loaded("tercio._shutdown")
    if shutdown is not None:
        shutdown.terminate_all()


def _end_multiprocessing() -> None:
    util: Any = loaded("multiprocessing.util")
    if util is not None:
        util._exit_function()


def _run_atexit() -> None:
    import atexit

    try:
        atexit._run_exitfuncs()
    except BaseException:
        if sys.version_info >= (3, 10):
            raise  # until then each error was printed, and the last one is raised once more


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
