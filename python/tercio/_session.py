"""The live workers behind a WorkerPool: started when needed, started anew when what they were started with changed.

A pool has one session for life; the session has a `_core.Pool` while there are workers. The lock covers the start
alone. A thread that waits for work holds no lock, so that another thread can terminate.
"""

from __future__ import annotations

import _thread
import os
import sys

from tercio import _children, _core, _frozen, _main, _postmortem, _shutdown, _worker
from tercio._frames import framed
from tercio._modules import loaded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from tercio._mapping import Mapping
    from tercio._params import MapPlan, WorkerPoolParams

_warned_of_threads = False


class Session:
    """See the module.

    Parameters
    ----------
    params : WorkerPoolParams
        The pool's; may change between calls.
    """

    def __init__(self, params: WorkerPoolParams) -> None:
        self.params = params
        self.core: _core.Pool | None = None
        self.outdated = False  # a setter changed what workers are started with
        self.applied: tuple[Any, Any] | None = None  # (worker_init, worker_exit) of the first apply
        self.lock = _thread.RLock()
        self._latest: tuple[Any, _core.Pool, _core.Call] | None = None  # what was applied last, if it can't change
        self._calls = _Calls(params)
        self.running: Mapping | None = None
        self._limits = (0.0, 0.0)
        self._names = _NamesOfMain()
        self._exit_functions: tuple[Any, Any] | None = None
        self._exit_results: list[Any] = []
        self._stats: list[dict[str, Any]] = []
        self._pid = os.getpid()
        self._closing = (0, _thread.allocate_lock())  # who asked for the end in a callback; held until it has come

    def check_process(self) -> None:
        """Refuse to work in a process that a fork copied us into."""
        if os.getpid() != self._pid:
            raise RuntimeError(
                "This WorkerPool belongs to the process that made it, and this one is a fork of that. "
                "Make a pool of its own here"
            )

    @property
    def is_ours(self) -> bool:
        """Whether this process made the pool."""
        return os.getpid() == self._pid

    # ---- Work -----------------------------------------------------------------------------------------------

    def map(
        self,
        plan: MapPlan,
        ordered: bool,
        func: Callable[..., Any],
        worker_init: Callable[..., Any] | None,
        worker_exit: Callable[..., Any] | None,
    ) -> _core.MapRun:
        """Start a map on workers that fit it."""
        with self.lock:
            core, call = self._ready(func, worker_init, worker_exit, plan.init_timeout, plan.exit_timeout)
            return core.map(
                call,
                plan.items,
                chunk_size=plan.chunk_size,
                ordered=ordered,
                in_turn=self.params.order_tasks,
                max_active=plan.max_active,
                limit=plan.limit,
                adapt=plan.adapt,
                lifespan=plan.lifespan,
                task_timeout=plan.task_timeout,
                retries=plan.retries,
                return_errors=plan.return_errors,
            )

    def ready_for_apply(
        self,
        func: Callable[..., Any],
        worker_init: Callable[..., Any] | None,
        worker_exit: Callable[..., Any] | None,
        init_timeout: float,
        exit_timeout: float,
    ) -> tuple[_core.Pool, _core.Call]:
        """Workers, and the call to apply on them. The first one's init and exit functions stay."""
        with self.lock:
            if self.core is not None and self.core.alive() and self.applied is not None:
                first = self.applied
                for name, given, kept in zip(("worker_init", "worker_exit"), (worker_init, worker_exit), first):
                    if given is not None and given is not kept:
                        from tercio._warn import warn

                        warn(f"The first apply set {name} for the pool's life; this one is not used", RuntimeWarning)
                worker_init, worker_exit = first
                init_timeout, exit_timeout = self._limits
            ready = self._ready(func, worker_init, worker_exit, init_timeout, exit_timeout, self.running)
            self.applied = (worker_init, worker_exit)
            self._latest = (func, *ready) if type(func) is _Function and _is_plain(func) else None
            return ready

    def ready_as_before(self, func: Callable[..., Any]) -> tuple[_core.Pool, _core.Call] | None:
        """The same as the last apply got, where nothing can have changed; a call's way is short then."""
        latest = self._latest
        if latest is None or latest[0] is not func or latest[1] is not self.core or self.outdated or func.__dict__:
            return None
        return latest[1:] if latest[1].alive() else None

    def _ready(
        self,
        func: Callable[..., Any],
        worker_init: Callable[..., Any] | None,
        worker_exit: Callable[..., Any] | None,
        init_timeout: float,
        exit_timeout: float,
        beside: Mapping | None = None,
    ) -> tuple[_core.Pool, _core.Call]:
        self.check_process()
        if self.core is None and self.params.start_method != "threading":
            _main.adopt(func)
        call = self._calls.get(func, worker_init, worker_exit)
        limits = (init_timeout, exit_timeout)
        kept: list[Any] = []
        if self.core is not None:
            if not self.core.alive():
                self.drop()
            elif self._must_restart(call):
                if beside is not None:  # waiting for its end could be waiting for ourselves
                    raise RuntimeError(
                        f"The workers have to be started anew for this, but {beside.name!r} is running on them; "
                        "exhaust or close it first"
                    )
                kept = self.finish()
        if self.core is None:
            self._start(call, limits)
            self._exit_results = kept
        elif self._exit_functions is not None and self.applied is None:
            self._warn_of_change(worker_init, worker_exit)
        assert self.core is not None
        if limits != self._limits:
            self.core.set_timeouts(*limits)
            self._limits = limits
        self._exit_functions = (worker_init, worker_exit)
        self._calls.sent(call)
        return self.core, call

    def _must_restart(self, call: _core.Call) -> bool:
        if self.outdated:
            return True
        if self.params.start_method != "fork" or self._calls.was_sent(call):
            return False
        # Workers that run already can't inherit it. What can't be sent needs workers that are forked now.
        from tercio._serialize import can_dump

        functions = (call.func, call.worker_init, call.worker_exit)
        return self._names.lack(functions) or not can_dump(functions, self.params.serializer, "fork")

    def _warn_of_change(self, worker_init: Any, worker_exit: Any) -> None:
        assert self._exit_functions is not None
        for name, now, before in zip(("worker_init", "worker_exit"), (worker_init, worker_exit), self._exit_functions):
            if now is not before:
                from tercio._warn import warn

                what = (
                    "workers that run already don't run it again"
                    if name == "worker_init"
                    else "the workers run the last one given when they end"
                )
                warn(f"{name} changed while the workers are kept alive; {what}", RuntimeWarning)

    # ---- Start and end --------------------------------------------------------------------------------------

    def _start(self, call: _core.Call, limits: tuple[float, float]) -> None:
        params = self.params
        method = params.start_method
        check_may_start(method)
        if method == "threading":
            # Here, as until Python 3.13 the thread that imports it first is the main one to it, and waited for.
            from tercio import _threads  # noqa: F401

            self._open(call, limits, {})
            return
        _postmortem.acquire(self)
        try:
            _log_of_workers("acquire", self)
            self._open(call, limits, self._for_fresh_workers())
        except BaseException:
            _postmortem.release(self)
            _log_of_workers("release", self)
            raise

    def _for_fresh_workers(self) -> dict[str, Any]:
        params = self.params
        method = params.start_method
        fresh: dict[str, Any] = {}
        if method != "threading":
            from tercio import _tracker

            _tracker.prepare()
            _children.show()
        if method in ("spawn", "forkserver"):
            from tercio import _command

            prepared = _worker.preparation(method, params.shared_objects, params.serializer)
            fresh["preparation"], fresh["descriptors"] = prepared
            fresh.update(_command.worker())
            if method == "forkserver":
                from tercio import _forkserver

                fresh["server"] = _forkserver.get_server()
        elif method == "fork":
            flush_output()
            _worker.prepare_fork()
            self._names.note()
        return fresh

    def _open(self, call: _core.Call, limits: tuple[float, float], fresh: dict[str, Any]) -> None:
        params = self.params
        self.core = _core.Pool(
            params.n_jobs,
            params.start_method,
            first_call=call,
            shared_objects=None if fresh else params.shared_objects,
            cpu_ids=params.cpu_ids,
            daemon=params.daemon,
            init_timeout=limits[0],
            exit_timeout=limits[1],
            observe=params.enable_insights,
            max_pending=params.max_pending or 0,
            **fresh,
        )
        self._limits = limits
        self.outdated = False
        self.applied = None
        self._stats = []
        self._calls.forget_sent()

    def finish(self) -> list[Any]:
        """End the workers when all work is done; returns (and keeps) what their exit functions returned."""
        core = self.core
        if core is None or not self.is_ours:
            return self._exit_results
        if not core.alive():
            self.drop()
            return self._exit_results
        kept = self._exit_results
        try:
            core.finish()
        finally:
            # Refused or interrupted, it leaves the workers for whoever ends them.
            if not core.alive():
                self._exit_results = kept + core.exit_results()
                self._note_stats(core)
                self._gone(core)
        _warn_of_cut(core)
        return self._exit_results

    def drop(self) -> None:
        """End the workers now. Raises nothing but, where the user made an error of it, the warning."""
        core = self.core
        if not self.is_ours:
            return
        if core is None:
            asked_by, closed = self._closing
            if asked_by != _thread.get_ident():
                with closed:
                    pass
            return
        # First of all, and again if an interrupt comes between: what follows can be made up for, workers left can't.
        try:
            core.terminate()
        finally:  # an interrupt that came within the grace is raised now
            was_quicker = self.core is not core  # another thread
            if not core.alive():
                self._gone(core)
        if was_quicker:
            return
        self._exit_results = self._exit_results + core.exit_results()
        self._note_stats(core)
        if core.pids():  # a callback asked, in the supervisor's thread, whose end it can't wait for
            self._closing = (_thread.get_ident(), _thread.allocate_lock())
            self._closing[1].acquire()
            _thread.start_new_thread(_close, (core, self._closing[1]))
        _warn_of_cut(core)
        left = core.left_behind()
        if left:
            from tercio._warn import warn

            warn(
                f"{left} worker thread{'s' if left > 1 else ''} can't be interrupted and {'are' if left > 1 else 'is'} "
                "left behind as daemon; processes can be stopped (start_method 'fork', 'spawn' or 'forkserver')",
                RuntimeWarning,
            )

    def pids(self) -> list[tuple[int, int]]:
        """Worker id and process id of each worker process that runs."""
        core = self.core
        if core is None or not self.is_ours:
            return []
        return [(worker, pid) for worker, pid in enumerate(core.pids()) if pid]

    def _gone(self, core: _core.Pool) -> None:
        if self.core is core:
            self.core = None
            self.applied = None
            self._latest = None
            self._exit_functions = None
            self._calls.clear()
            if self.params.start_method != "threading":
                _postmortem.release(self, core)
                _log_of_workers("release", self)

    def wait_idle(self) -> None:
        """Wait for applied tasks and their callbacks."""
        if self.core is not None and self.is_ours:
            self.core.wait_idle()
            self.hear_workers()

    def hear_workers(self) -> None:
        """What workers have logged so far has been handled when this returns."""
        if self.core is not None and self.params.start_method != "threading":
            _log_of_workers("wait_for_all")

    # ---- What became of it ----------------------------------------------------------------------------------

    def exit_results(self) -> list[Any]:
        """What exit functions have returned since the workers were started."""
        core = self.core
        now = core.exit_results() if core is not None and self.is_ours else []
        return self._exit_results + now

    def stats(self) -> list[dict[str, Any]]:
        """A dict a worker; of the last workers if there are none now."""
        core = self.core
        if core is None or not self.is_ours:
            return [dict(worker) for worker in self._stats]
        return _with_causes(core.stats())

    def _note_stats(self, core: _core.Pool) -> None:
        # A pool that is gone may have nothing to tell any more; what it told before stays.
        stats = _with_causes(core.stats())
        if stats:
            self._stats = stats


def _warn_of_cut(core: _core.Pool) -> None:
    """Name the workers that were killed because what they ran at their end took too long."""
    workers = [f"Worker-{worker['worker']}" for worker in core.stats() if worker["cut_short"]]
    if workers:
        from tercio._warn import warn

        warn(
            f"{', '.join(workers)} {'was' if len(workers) == 1 else 'were'} killed: what a worker runs at its end "
            "(functions of atexit, finalizers, threads that are not daemons) took longer than 5 seconds",
            RuntimeWarning,
        )


def _with_causes(stats: list[dict[str, Any]]) -> list[dict[str, Any]]:
    # How a worker died, in words. Those of a pool that has ended are one list for all threads that ask.
    told = [{**worker, "died": _cause(worker["died"])} for worker in stats]
    for worker in told:
        del worker["killed"], worker["cut_short"]  # for the verdict on memory, and for a warning
    return told


def _cause(died: tuple[int, int] | None) -> str | None:
    if died is None:
        return None
    number, code = died
    if number:
        from tercio.exception import signal_of

        return str(getattr(signal_of(number), "name", f"signal {number}"))
    return f"exit code {code}" if code >= 0 else "unknown"


def _close(core: _core.Pool, closed: _thread.LockType) -> None:
    try:
        core.terminate()
    finally:
        closed.release()


class _Calls:
    """Functions that were called lately, so that workers who know one needn't be sent it again."""

    MOST = 64

    def __init__(self, params: WorkerPoolParams) -> None:
        self.params = params
        self._known: dict[tuple[Any, ...], tuple[_core.Call, bytes | None]] = {}
        self._sent: set[int] = set()

    def get(
        self,
        func: Callable[..., Any],
        worker_init: Callable[..., Any] | None,
        worker_exit: Callable[..., Any] | None,
    ) -> _core.Call:
        params = self.params
        functions = (func, worker_init, worker_exit)
        key = (*map(_identity, functions), params.pass_worker_id, params.use_worker_state)
        state = None if params.start_method == "threading" or all(map(_is_plain, functions)) else self._state(functions)
        known = self._known.get(key)
        # A bound method or a partial is the same object though what it holds has changed since.
        if known is not None and known[1] == state:
            return known[0]
        call = _core.Call(
            framed(func),
            framed(worker_init),
            framed(worker_exit),
            pass_worker_id=params.pass_worker_id,
            pass_shared_objects=params.shared_objects is not None,
            use_worker_state=params.use_worker_state,
            serializer=params.serializer,
        )
        if len(self._known) >= self.MOST:
            oldest, _ = self._known.pop(next(iter(self._known)))
            self._sent.discard(id(oldest))
        self._known[key] = (call, state)
        return call

    def _state(self, functions: tuple[Any, ...]) -> bytes | None:
        from tercio._serialize import dump_call

        try:
            return b"".join(bytes(part) for part in dump_call(functions, self.params.serializer, "spawn"))
        except Exception:
            return None  # can't be sent anyway: it is inherited, or refused with a reason later

    def was_sent(self, call: _core.Call) -> bool:
        return id(call) in self._sent

    def sent(self, call: _core.Call) -> None:
        self._sent.add(id(call))

    def forget_sent(self) -> None:
        self._sent.clear()

    def clear(self) -> None:
        self._known.clear()
        self._sent.clear()


class _NamesOfMain:
    """What the main module had defined when workers were forked.

    They don't know what came later, nor the new meaning of a name that was defined again.
    """

    def __init__(self) -> None:
        self.known: dict[str, Any] = {}

    def note(self) -> None:
        # Functions and classes alone: others may be large, and would live as long as the workers.
        self.known = {name: value for name, value in _main.names().items() if isinstance(value, (_Function, type))}

    def lack(self, functions: tuple[Any, ...]) -> bool:
        names = _main.names()
        for function in functions:
            function = _bare(function)
            if getattr(function, "__module__", None) != "__main__":
                continue
            name = str(getattr(function, "__qualname__", "")).partition(".")[0]
            now = names.get(name)
            if isinstance(now, (_Function, type)) and self.known.get(name) is not now:
                return True
        return False


def _bare(function: Any) -> Any:
    """What a partial, a bound method or a callable object is found by."""
    while not isinstance(function, (_Function, type)):
        inner = getattr(function, "func", None)
        if inner is None:
            owner = getattr(function, "__self__", None)
            return type(function if owner is None else owner)
        function = inner
    return function


_Method = type(_Calls.clear.__get__(object()))
_Function = type(_Calls.clear)
_Builtin = type(len)


def _identity(function: Any) -> Any:
    if isinstance(function, _Method):
        return id(function.__self__), id(function.__func__)
    return id(function)


def _is_plain(function: Any) -> bool:
    """Whether a function holds nothing that may change, and is known by its name."""
    if function is None or isinstance(function, type):
        return True
    if isinstance(function, _Function):
        return function.__closure__ is None and not function.__dict__
    return isinstance(function, _Builtin) and isinstance(getattr(function, "__self__", None), (type(sys), type(None)))


# ---- What must hold before workers start ------------------------------------------------------------------------


def check_may_start(method: str) -> None:
    """Whether this process may start workers now."""
    global _warned_of_threads
    _frozen.check()
    if method == "threading":
        return
    if method == "fork" and not _core.IS_MAIN_INTERPRETER:
        raise RuntimeError(
            "start_method 'fork' is not supported in a sub-interpreter, since Python goes on in the main interpreter "
            "alone after a fork; use 'spawn', 'forkserver' or 'threading'"
        )
    if _worker.is_preparing():
        raise RuntimeError(
            "A worker that is being started runs the main module, and that starts a pool of its own: put what starts "
            "pools under `if __name__ == '__main__':`, so that workers can run the module without doing the same"
        )
    # multiprocessing says the same by the same means, so code that expects its error needs no change.
    if _worker.is_daemon():
        raise AssertionError("A daemonic worker can't have children; make the outer pool with daemon=False")
    threading: Any = loaded("threading")
    if method == "fork" and not _warned_of_threads and threading is not None and _other_threads(threading) > 0:
        _warned_of_threads = True
        from tercio._warn import warn

        warn(
            "This process forks workers while other threads run in it; a lock that one of them holds stays locked "
            "in the workers for ever. Consider start_method='forkserver'",
            RuntimeWarning,
        )


def _other_threads(threading: Any) -> int:
    log: Any = loaded("tercio._log")  # its thread holds nothing while a fork is made
    # The main thread doesn't count where it is over, and waits for the others at the interpreter's end.
    alive = sum(thread.is_alive() for thread in threading.enumerate())
    return int(alive - 1 - (log.n_threads() if log is not None else 0))


def _log_of_workers(do: str, *arguments: Any) -> None:
    log = loaded("tercio._log")  # imported by who wants workers' records
    if log is not None:
        getattr(log, do)(*arguments)


def flush_output() -> None:
    """What is in the buffers of standard output is printed once, by this process, before it is copied."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except (AttributeError, OSError, ValueError):
            pass  # closed, or not a real stream


def watch(pool: Any) -> None:
    """Have the interpreter's end terminate the pool."""
    _shutdown.add(pool)
