"""The extension: Python functions and objects put into the engine. Private; `tercio.WorkerPool` is the face.

What is hot is here: encoding, feeding, taking results out, ordering, calling. What is read by people (parameter
checks, texts, bars) is in Python around it. Nothing here checks more than it needs to stay safe.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, Final, Generic, TypeVar, final

_R = TypeVar("_R")

METHODS: Final[tuple[str, ...]]
IS_MAIN_INTERPRETER: Final[bool]
"""The start methods of this platform, the default first."""

ENGINE_VERSION: Final[int]
"""The engine's, which is that of the layout of its shared memory, too."""

def set_ending(ending: bool, /) -> None:
    """Say whether this thread brings the interpreter to its end."""

def stay() -> None:
    """At the interpreter's end, keep this thread, unless it brings the end or the engine started it."""

def usable_cpu_count() -> int:
    """CPUs that this process may use: affinity and the container's quota, rounded up.

    From Python 3.13 on, the number given by ``-X cpu_count=N`` or ``PYTHON_CPU_COUNT`` takes their place, as it does
    in ``os.process_cpu_count()``.

    Returns
    -------
    int
        At least 1. It is what ``n_jobs=None`` takes.

    Examples
    --------
    >>> from tercio import cpu_count, usable_cpu_count
    >>> 1 <= usable_cpu_count() <= cpu_count()
    True
    """

@final
class Call:
    """A function and how it is called; sent to each worker once.

    Under threading it is handed over as it is. Under fork a worker that was forked after `register` (Pool does it
    for `first_call`) inherits it; else, and under spawn and forkserver, it is packed once by
    ``tercio._serialize.dump_call(call_tuple, serializer, method) -> list of bytes-like`` (parts[0] is names or a
    pickle, the others its out-of-band buffers), where call_tuple is (func, worker_init, worker_exit), and loaded in
    the worker by ``tercio._names.load_call(parts, serializer)``.
    """

    func: Any
    worker_init: Any
    worker_exit: Any
    def __init__(
        self,
        func: Callable[..., Any],
        worker_init: Callable[..., Any] | None = None,
        worker_exit: Callable[..., Any] | None = None,
        *,
        pass_worker_id: bool = False,
        pass_shared_objects: bool = False,
        use_worker_state: bool = False,
        serializer: str = "pickle",  # "pickle", "dill", "cloudpickle"
        unpack: bool = True,  # contract section 3: dict -> keywords, iterable -> positional
    ) -> None: ...

@final
class Server:
    """A forkserver process (tercio_server_open_piped). Pools borrow it."""

    def __init__(self, argv: Sequence[str], *, pipe: tuple[bytes, bytes] | None = None) -> None: ...
    pid: int
    def fits(self) -> bool:
        """Whether it has the users, groups and rights that this process has now."""

    def close(self) -> None:
        """End the server, and with it the workers that it forked."""

@final
class Pool:
    """A set of live workers, started by the constructor. Everything a worker gets besides calls is fixed here.

    The worker side, for a process: `tercio._worker.enter(worker_id, n_workers, daemon, method, parent_pid, parts,
    descriptors)` is called once before anything else (`parts`: None when forked, else what `preparation` held, as
    memoryviews that may be kept; `descriptors`: the worker's copies of those given here, which are its to close)
    and returns the shared objects (None under fork, where they are inherited); `tercio._ending.leave()` last of all.
    Under threading neither is called.
    """

    def __init__(
        self,
        n_workers: int,
        method: str,  # "fork", "spawn", "forkserver", "threading"
        *,
        first_call: Call | None = None,
        shared_objects: object = None,  # fork (inherited) and threading (as it is)
        preparation: Sequence[
            bytes
        ] = (),  # spawn, forkserver: any bytes-like parts; large ones are mapped privately, not copied
        argv: Sequence[str] = (),  # spawn, forkserver: the worker's command
        server: Server | None = None,
        cpu_ids: Sequence[Sequence[int]] | None = None,
        daemon: bool = True,
        grace: float = 1.0,
        init_timeout: float = 0.0,
        exit_timeout: float = 0.0,
        descriptors: Sequence[int] = (),  # spawn, forkserver: each worker gets copies; ours may be closed afterwards
        observe: bool = False,  # note which items take longest, and their arguments
        max_pending: int = 0,  # tasks applied and not finished, until `apply` waits; 0: the engine's default
        pipe: tuple[bytes, bytes] | None = None,  # around the argument; None: it is added to argv
    ) -> None: ...
    n_workers: int
    method: str
    def map(
        self,
        call: Call,
        items: Iterator[Any],
        *,
        chunk_size: float,  # fractional sizes spread the remainder
        ordered: bool,
        in_turn: bool = False,
        max_active: int = 0,  # 0: adapts; else kept to the letter
        limit: int = -1,  # items taken from `items` at most; -1: all
        adapt: bool = False,  # chunk_size follows the measured task time
        lifespan: int = 0,
        task_timeout: float = 0.0,
        retries: int = 0,  # on_worker_death="retry"
        return_errors: bool = False,  # on_error="return"
    ) -> MapRun:
        """Begin a map; times are in seconds, 0 for none."""
    def apply(
        self,
        call: Call,
        args: tuple[Any, ...],
        kwargs: dict[str, Any] | None = None,
        *,
        callback: Callable[[Any], Any] | None = None,
        error_callback: Callable[[BaseException], Any] | None = None,
        task_timeout: float = 0.0,
        retries: int = 0,
        return_errors: bool = False,
    ) -> AsyncResult[Any]:
        """Hand out one task; callbacks run in the supervisor's thread."""
    def apply_wait(self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None) -> Any:
        """apply(...).get() without the object between."""
    def wait_idle(self) -> None:
        """Wait until all applied tasks are done and their callbacks have run."""
    def finish(self) -> list[Any]:
        """Wait for all work, run the exit functions, end the workers; return what the exit functions returned.

        They come in the order in which workers ended. Raises what an exit function raised. The pool is dead afterwards.
        """
    def set_timeouts(self, init_timeout: float, exit_timeout: float, /) -> None:
        """New limits for init and exit functions, in seconds; 0: none. Workers that run keep running."""
    def left_behind(self) -> int:
        """Threads that a pool that is gone could not end."""
    def terminate(self) -> None:
        """End the workers, soft first, hard after the grace. Never raises.

        The pool is dead afterwards; AsyncResults that are not ready raise RuntimeError('Pool was terminated'), maps
        that run raise it at their next result
        once what had arrived is handed out.
        """
    def alive(self) -> bool:
        """Neither finished nor terminated, of this process, and no failure of the pool itself."""
    def exit_results(self) -> list[Any]:
        """What exit functions of workers that were replaced returned so far, and after finish() all."""
    def pids(self) -> list[int]:
        """A process id for each worker, 0 where none runs."""
    def stats(self) -> list[dict[str, Any]]:
        """A dict a worker: worker, pid, state, tasks, restarts, start, init, wait, work, exit (seconds), died.

        died is None, or the signal and the exit code (-1: unknown) of the last one that ended without being asked.

        With observe also longest: (seconds, index, arguments' text), the longest first.
        """

@final
class MapRun:
    """The results of one map, as an iterator; `close` stops its work at once. Dropping it closes it."""

    def __iter__(self) -> MapRun: ...
    def __next__(self) -> Any: ...
    def collect(self, progress: Callable[[int], Any] | None = None, interval: float = 0.1) -> list[Any]:
        """All results in the order of the items, or as they came when not ordered.

        `progress(done)` is called about every `interval` seconds while there is news, and once at the end.
        """
    def close(self) -> None:
        """Take back what nobody has begun, and wait for nothing."""
    done: int  # tasks finished so far (committed by the workers), chunks not waited for
    taken: int  # items taken from the iterator
    finished: bool

@final
class AsyncResult(Generic[_R]):
    """The result of a task that ``apply_async`` has handed out. It can be awaited, too.

    Examples
    --------
    >>> from tercio import WorkerPool
    >>> with WorkerPool(n_jobs=2, start_method="threading") as pool:
    ...     result = pool.apply_async(pow, (2, 10))
    ...     result.get()
    1024
    """

    def ready(self) -> bool:
        """Whether it is there: a result, an error or a cancellation.

        Returns
        -------
        bool
            False while the task waits or runs.

        Examples
        --------
        >>> from tercio import WorkerPool
        >>> with WorkerPool(n_jobs=1, start_method="threading") as pool:
        ...     result = pool.apply_async(abs, (-1,))
        ...     result.wait()
        ...     result.ready()
        True
        """
    def successful(self) -> bool:
        """Whether the task returned something, rather than raised.

        Returns
        -------
        bool
            False if it raised or was cancelled.

        Raises
        ------
        ValueError
            If it is not ready.

        Examples
        --------
        >>> from tercio import WorkerPool
        >>> with WorkerPool(n_jobs=1, start_method="threading") as pool:
        ...     result = pool.apply_async(int, ("no number",))
        ...     result.wait()
        ...     result.successful()
        False
        """
    def wait(self, timeout: float | None = None) -> None:
        """Wait until it is ready, or for some time.

        Parameters
        ----------
        timeout : float, optional
            Seconds; None: for as long as it takes.

        Examples
        --------
        >>> import time
        >>> from tercio import WorkerPool
        >>> with WorkerPool(n_jobs=1) as pool:
        ...     result = pool.apply_async(time.sleep, (60,))
        ...     result.wait(timeout=0.01)
        ...     result.ready()
        False
        """
    def get(self, timeout: float | None = None) -> _R:
        """The result, waited for.

        Parameters
        ----------
        timeout : float, optional
            Seconds; None: for as long as it takes.

        Returns
        -------
        object
            What the task returned.

        Raises
        ------
        TimeoutError
            If it isn't ready by then. The task goes on.
        BaseException
            What the task raised, with the worker's traceback as its cause.
        concurrent.futures.CancelledError
            If it was cancelled.
        RuntimeError
            If the pool was terminated first.

        Examples
        --------
        >>> from tercio import WorkerPool
        >>> with WorkerPool(n_jobs=1, start_method="threading") as pool:
        ...     result = pool.apply_async(int, ("no number",))
        ...     try:
        ...         result.get(timeout=60)
        ...     except ValueError:
        ...         print("it isn't one")
        it isn't one
        """
    def cancel(self) -> bool:
        """Cancel the task: one that waits is not run, one that runs is interrupted, and its worker killed if need be.

        Returns
        -------
        bool
            False if it was ready already.

        Examples
        --------
        >>> import time
        >>> from tercio import WorkerPool
        >>> with WorkerPool(n_jobs=1) as pool:
        ...     result = pool.apply_async(time.sleep, (60,))
        ...     result.cancel()
        True
        """
    def __await__(self) -> Generator[Any, None, _R]:
        """Wait for it in a coroutine, as ``get`` does in a thread.

        Examples
        --------
        >>> import asyncio
        >>> from tercio import WorkerPool
        >>> async def main():
        ...     with WorkerPool(n_jobs=1, start_method="threading") as pool:
        ...         return await pool.apply_async(abs, (-1,))
        >>> asyncio.run(main())
        1
        """

STACK_SIGNAL: int

def catch_crashes(fd: int, target: int, at: int, most: int, /) -> None:
    """In a worker: at a crash raise STACK_SIGNAL, for faulthandler on `fd`, copy that to `target`, and crash on."""

def worker_main(argument: str) -> None:
    """tercio_worker_main: does the work of a worker or server and ends the process."""

def encode(obj: Any, serializer: str = "pickle") -> list[bytes]:
    """One value as it travels: [head, buffers...]. For tests."""

def decode(parts: Sequence[Any], serializer: str = "pickle") -> Any: ...
