"""WorkerPool: workers started by fork, spawn, forkserver or threading, and the ways to give them work."""

from __future__ import annotations

from tercio import _numpy, _shutdown
from tercio._frames import framed
from tercio._mapping import Mapping, arguments
from tercio._params import WorkerPoolParams, check_function, check_policy, check_timeout
from tercio._session import Session
from tercio.context import DEFAULT_START_METHOD

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Sequence
    from typing import Any, Literal, overload

    from tercio._core import AsyncResult
    from tercio._typing import A, R

__all__ = ["WorkerPool"]


class WorkerPool:
    """A pool of workers.

    Workers start at the first call. Without `keep_alive` they end with each map call; those that `apply` started,
    and kept ones, live until ``stop_and_join`` or ``terminate``. Leaving a ``with`` block terminates.

    Parameters
    ----------
    n_jobs : int, optional
        Number of workers. None and 0: all CPUs that this process may use.
    daemon : bool
        Workers can't start processes of their own. False allows nested pools.
    cpu_ids : list of int or of list of int, optional
        The CPUs that each worker is pinned to: an entry a worker, or one for all.
    shared_objects : object
        Passed to each task, if not None. Copy-on-write under ``fork``, sent once under ``spawn`` and
        ``forkserver`` (large buffers are shared memory), the object itself under ``threading``.
    pass_worker_id : bool
        Pass the worker's id, from 0, as the first argument.
    use_worker_state : bool
        Pass a dict that the worker keeps from task to task.
    start_method : str
        ``"fork"``, ``"spawn"``, ``"forkserver"`` or ``"threading"``.
    keep_alive : bool
        Keep the workers from one map call to the next.
    use_dill : bool
        Short for ``serializer="dill"``.
    enable_insights : bool
        Make ``get_insights`` tell what the workers did with their time.
    order_tasks : bool
        Chunk *i* of a map call goes to worker *i* modulo `n_jobs`.
    serializer : str, optional
        Keyword only: ``"pickle"`` (default), ``"dill"`` or ``"cloudpickle"``.
    preload : iterable of str, optional
        Keyword only, for ``forkserver``: modules that the server imports for its workers. One choice for all pools
        of the process, to be made before the first one starts.
    max_pending : int, optional
        Keyword only: most applied tasks that are queued or running. ``apply_async`` waits while there are so many.
        None: 10,000, or two a worker where that is more.

    Raises
    ------
    TypeError, ValueError
        If a parameter is of the wrong type or out of range; the text names it.
    ImportError
        If a serializer's package is missing; the text names the extra to install.

    Examples
    --------
    >>> from tercio import WorkerPool
    >>> with WorkerPool(n_jobs=2, start_method="threading") as pool:
    ...     pool.map(abs, [-1, 2, -3])
    [1, 2, 3]
    """

    def __init__(
        self,
        n_jobs: int | None = None,
        daemon: bool = True,
        cpu_ids: Sequence[int | Sequence[int]] | None = None,
        shared_objects: Any = None,
        pass_worker_id: bool = False,
        use_worker_state: bool = False,
        start_method: str = DEFAULT_START_METHOD,
        keep_alive: bool = False,
        use_dill: bool = False,
        enable_insights: bool = False,
        order_tasks: bool = False,
        *,
        serializer: str | None = None,
        preload: Iterable[str] | None = None,
        max_pending: int | None = None,
    ) -> None:
        _shutdown.check()
        self.pool_params = WorkerPoolParams(
            n_jobs,
            daemon,
            cpu_ids,
            shared_objects,
            pass_worker_id,
            use_worker_state,
            start_method,
            keep_alive,
            use_dill,
            enable_insights,
            order_tasks,
            serializer,
            max_pending,
        )
        if preload is not None:
            if start_method != "forkserver":
                raise ValueError(f"preload is for start_method 'forkserver', not {start_method!r}")
            from tercio._forkserver import set_forkserver_preload

            set_forkserver_preload(preload)
        self._session = Session(self.pool_params)
        self._ctx: Any = None

    @property
    def ctx(self) -> Any:
        """The multiprocessing context whose locks, values and events fit this pool's shared objects.

        Examples
        --------
        >>> from tercio import WorkerPool
        >>> def add(total, value):
        ...     with total.get_lock():
        ...         total.value += value
        >>> with WorkerPool(n_jobs=2, start_method="fork") as pool:
        ...     total = pool.ctx.Value("i", 0)
        ...     pool.set_shared_objects(total)
        ...     _ = pool.map(add, range(10))
        ...     total.value
        45
        """
        if self._ctx is None:
            from tercio.context import get_context

            self._ctx = get_context(self.pool_params.start_method)
        return self._ctx

    # ---- Settings -------------------------------------------------------------------------------------------

    def pass_on_worker_id(self, pass_on: bool = True) -> None:
        """Choose whether tasks get the worker's id as their first argument. Kept workers are started anew.

        Parameters
        ----------
        pass_on : bool
            Pass it.

        Examples
        --------
        >>> from tercio import WorkerPool
        >>> with WorkerPool(n_jobs=2, start_method="threading") as pool:
        ...     pool.pass_on_worker_id()
        ...     set(pool.map(lambda worker_id, _: worker_id, range(10))) <= {0, 1}
        True
        """
        self._set("pass_worker_id", bool(pass_on))

    def set_shared_objects(self, shared_objects: Any = None) -> None:
        """Choose the objects that all workers share. Kept workers are started anew.

        Parameters
        ----------
        shared_objects : object
            None: there are none, and none are passed.

        Examples
        --------
        >>> from tercio import WorkerPool
        >>> with WorkerPool(n_jobs=2, start_method="threading") as pool:
        ...     pool.set_shared_objects({"base": 10})
        ...     pool.map(lambda shared, number: shared["base"] + number, [1, 2])
        [11, 12]
        """
        self._set("shared_objects", shared_objects)

    def set_use_worker_state(self, use_worker_state: bool = True) -> None:
        """Choose whether tasks get a dict of the worker's own. Kept workers are started anew.

        Parameters
        ----------
        use_worker_state : bool
            Pass it.

        Examples
        --------
        >>> from tercio import WorkerPool
        >>> def count(state, _):
        ...     state["calls"] = state.get("calls", 0) + 1
        ...     return state["calls"]
        >>> with WorkerPool(n_jobs=1, start_method="threading") as pool:
        ...     pool.set_use_worker_state()
        ...     pool.map(count, range(3))
        [1, 2, 3]
        """
        self._set("use_worker_state", bool(use_worker_state))

    def set_keep_alive(self, keep_alive: bool = True) -> None:
        """Choose whether workers live on after a map call.

        Parameters
        ----------
        keep_alive : bool
            Keep them.

        Examples
        --------
        >>> from tercio import WorkerPool
        >>> with WorkerPool(n_jobs=2, start_method="threading") as pool:
        ...     pool.set_keep_alive()
        ...     pool.map(abs, [-1]), pool.map(abs, [-2])  # by the same workers
        ([1], [2])
        """
        self._set("keep_alive", bool(keep_alive), restart=False)

    def set_order_tasks(self, order_tasks: bool = True) -> None:
        """Choose whether chunks go to the workers in turn.

        Parameters
        ----------
        order_tasks : bool
            Chunk *i* goes to worker *i* modulo ``n_jobs``.

        Examples
        --------
        >>> from tercio import WorkerPool
        >>> with WorkerPool(n_jobs=2, start_method="threading", pass_worker_id=True) as pool:
        ...     pool.set_order_tasks()
        ...     pool.map(lambda worker_id, _: worker_id, range(4), chunk_size=1)
        [0, 1, 0, 1]
        """
        self._set("order_tasks", bool(order_tasks), restart=False)

    def _set(self, name: str, value: Any, restart: bool = True) -> None:
        self._session.check_process()
        running = self._session.running
        if running is not None:
            raise RuntimeError(f"Cannot change {name} while {running.name!r} is running")
        setattr(self.pool_params, name, value)
        if restart:
            self._session.outdated = True

    # ---- Map ------------------------------------------------------------------------------------------------

    if TYPE_CHECKING:
        # What returns arrays gives one array.
        @overload
        def map(  # type: ignore[overload-overlap]
            self,
            func: Callable[..., A],
            iterable_of_args: Iterable[Any],
            iterable_len: int | None = None,
            max_tasks_active: int | None = None,
            chunk_size: float | None = None,
            n_splits: int | None = None,
            worker_lifespan: int | None = None,
            progress_bar: bool = False,
            concatenate_numpy_output: Literal[True] = True,
            worker_init: Callable[..., Any] | None = None,
            worker_exit: Callable[..., Any] | None = None,
            task_timeout: float | None = None,
            worker_init_timeout: float | None = None,
            worker_exit_timeout: float | None = None,
            progress_bar_options: dict[str, Any] | None = None,
            progress_bar_style: str | None = None,
            *,
            on_worker_death: str = "raise",
            max_retries: int = 2,
            on_error: str = "raise",
        ) -> A: ...

        @overload
        def map(
            self,
            func: Callable[..., R],
            iterable_of_args: Iterable[Any],
            iterable_len: int | None = None,
            max_tasks_active: int | None = None,
            chunk_size: float | None = None,
            n_splits: int | None = None,
            worker_lifespan: int | None = None,
            progress_bar: bool = False,
            concatenate_numpy_output: bool = True,
            worker_init: Callable[..., Any] | None = None,
            worker_exit: Callable[..., Any] | None = None,
            task_timeout: float | None = None,
            worker_init_timeout: float | None = None,
            worker_exit_timeout: float | None = None,
            progress_bar_options: dict[str, Any] | None = None,
            progress_bar_style: str | None = None,
            *,
            on_worker_death: str = "raise",
            max_retries: int = 2,
            on_error: str = "raise",
        ) -> list[R]: ...

    def map(
        self,
        func: Callable[..., Any],
        iterable_of_args: Iterable[Any],
        iterable_len: int | None = None,
        max_tasks_active: int | None = None,
        chunk_size: float | None = None,
        n_splits: int | None = None,
        worker_lifespan: int | None = None,
        progress_bar: bool = False,
        concatenate_numpy_output: bool = True,
        worker_init: Callable[..., Any] | None = None,
        worker_exit: Callable[..., Any] | None = None,
        task_timeout: float | None = None,
        worker_init_timeout: float | None = None,
        worker_exit_timeout: float | None = None,
        progress_bar_options: dict[str, Any] | None = None,
        progress_bar_style: str | None = None,
        *,
        on_worker_death: str = "raise",
        max_retries: int = 2,
        on_error: str = "raise",
    ) -> Any:
        """Call a function on each element and return the results in the elements' order.

        An element that is a dict is passed as keyword arguments; another iterable, except str, bytes and numpy
        arrays, as positional ones; anything else as the one argument.

        Parameters
        ----------
        func : callable
            What to call.
        iterable_of_args : iterable
            The elements. A numpy array is cut along its first axis, and the pieces are handed over whole.
        iterable_len : int, optional
            Take so many elements at most. Tells the length where the iterable doesn't.
        max_tasks_active : int, optional
            Tasks taken from the iterable and not finished, at most. Default: ``n_jobs * chunk_size * 2``, and more
            where tasks are so short that workers would starve.
        chunk_size : int or float, optional
            Tasks that a worker gets at once, at least 1; a fraction is spread. Wins over `n_splits`.
        n_splits : int, optional
            Number of chunks. Default: 64 for each worker; for arrays 4 pieces.
        worker_lifespan : int, optional
            Replace a worker after the chunk in which it completes so many tasks.
        progress_bar : bool
            Show a progress bar.
        concatenate_numpy_output : bool
            Join results that are arrays along the first axis.
        worker_init, worker_exit : callable, optional
            Called once in each worker before its first task, and when it ends after having worked. They get worker
            id, shared objects and worker state as the tasks do.
        task_timeout, worker_init_timeout, worker_exit_timeout : int or float, optional
            Limits in seconds for each task, init and exit function.
        progress_bar_options : dict, optional
            Options for tqdm.
        progress_bar_style : str, optional
            ``"std"``, ``"rich"``, ``"notebook"`` or ``"dashboard"``.
        on_worker_death : str
            ``"raise"``: the death of a worker fails the call. ``"retry"``: its task is tried again by a new one.
        max_retries : int
            Most retries of a task.
        on_error : str
            ``"raise"``: the first failure fails the call. ``"return"``: it takes its result's place.

        Returns
        -------
        list or numpy.ndarray
            The results.

        Raises
        ------
        TypeError, ValueError
            If a parameter is of the wrong type or out of range; no worker is started.
        RuntimeError
            If a map call runs already on this pool.
        tercio.exception.WorkerDiedError
            If a worker died.
        TimeoutError
            If a limit was exceeded.
        Exception
            What a task, an init or exit function, or the iterable raised.

        Examples
        --------
        >>> from tercio import WorkerPool
        >>> with WorkerPool(n_jobs=2, start_method="threading") as pool:
        ...     pool.map(pow, [(2, 3), (3, 2), {"base": 5, "exp": 2}])
        [8, 9, 25]
        """
        results = self._collect(
            "map", True, func, iterable_of_args, iterable_len, max_tasks_active, chunk_size, n_splits, worker_lifespan,
            progress_bar, worker_init, worker_exit, task_timeout, worker_init_timeout, worker_exit_timeout,
            progress_bar_options, progress_bar_style, on_worker_death, max_retries, on_error,
        )  # fmt: skip
        return _numpy.concatenate(results) if concatenate_numpy_output else results

    def map_unordered(
        self,
        func: Callable[..., R],
        iterable_of_args: Iterable[Any],
        iterable_len: int | None = None,
        max_tasks_active: int | None = None,
        chunk_size: float | None = None,
        n_splits: int | None = None,
        worker_lifespan: int | None = None,
        progress_bar: bool = False,
        worker_init: Callable[..., Any] | None = None,
        worker_exit: Callable[..., Any] | None = None,
        task_timeout: float | None = None,
        worker_init_timeout: float | None = None,
        worker_exit_timeout: float | None = None,
        progress_bar_options: dict[str, Any] | None = None,
        progress_bar_style: str | None = None,
        *,
        on_worker_death: str = "raise",
        max_retries: int = 2,
        on_error: str = "raise",
    ) -> list[R]:
        """Call a function on each element and return the results in the order in which they came.

        Parameters, errors and unpacking are those of ``map``.

        Returns
        -------
        list
            The results.

        Examples
        --------
        >>> from tercio import WorkerPool
        >>> with WorkerPool(n_jobs=2, start_method="threading") as pool:
        ...     sorted(pool.map_unordered(abs, [-1, 2, -3]))
        [1, 2, 3]
        """
        return self._collect(
            "map_unordered", False, func, iterable_of_args, iterable_len, max_tasks_active, chunk_size, n_splits,
            worker_lifespan, progress_bar, worker_init, worker_exit, task_timeout, worker_init_timeout,
            worker_exit_timeout, progress_bar_options, progress_bar_style, on_worker_death, max_retries, on_error,
        )  # fmt: skip

    def imap(
        self,
        func: Callable[..., R],
        iterable_of_args: Iterable[Any],
        iterable_len: int | None = None,
        max_tasks_active: int | None = None,
        chunk_size: float | None = None,
        n_splits: int | None = None,
        worker_lifespan: int | None = None,
        progress_bar: bool = False,
        worker_init: Callable[..., Any] | None = None,
        worker_exit: Callable[..., Any] | None = None,
        task_timeout: float | None = None,
        worker_init_timeout: float | None = None,
        worker_exit_timeout: float | None = None,
        progress_bar_options: dict[str, Any] | None = None,
        progress_bar_style: str | None = None,
        *,
        on_worker_death: str = "raise",
        max_retries: int = 2,
        on_error: str = "raise",
    ) -> Generator[R, None, None]:
        """Call a function on each element and yield the results in the elements' order.

        Begins at the first ``next``, where errors in parameters come too. Closing or dropping the generator stops
        the work. Parameters, errors and unpacking are those of ``map``.

        Yields
        ------
        object
            The results.

        Examples
        --------
        >>> from tercio import WorkerPool
        >>> with WorkerPool(n_jobs=2, start_method="threading") as pool:
        ...     list(pool.imap(abs, [-1, 2, -3]))
        [1, 2, 3]
        """
        return self._stream(
            "imap", True, func, iterable_of_args, iterable_len, max_tasks_active, chunk_size, n_splits, worker_lifespan,
            progress_bar, worker_init, worker_exit, task_timeout, worker_init_timeout, worker_exit_timeout,
            progress_bar_options, progress_bar_style, on_worker_death, max_retries, on_error,
        )  # fmt: skip

    def imap_unordered(
        self,
        func: Callable[..., R],
        iterable_of_args: Iterable[Any],
        iterable_len: int | None = None,
        max_tasks_active: int | None = None,
        chunk_size: float | None = None,
        n_splits: int | None = None,
        worker_lifespan: int | None = None,
        progress_bar: bool = False,
        worker_init: Callable[..., Any] | None = None,
        worker_exit: Callable[..., Any] | None = None,
        task_timeout: float | None = None,
        worker_init_timeout: float | None = None,
        worker_exit_timeout: float | None = None,
        progress_bar_options: dict[str, Any] | None = None,
        progress_bar_style: str | None = None,
        *,
        on_worker_death: str = "raise",
        max_retries: int = 2,
        on_error: str = "raise",
    ) -> Generator[R, None, None]:
        """Call a function on each element and yield the results as they come.

        Begins at the first ``next``, where errors in parameters come too. Closing or dropping the generator stops
        the work. Parameters, errors and unpacking are those of ``map``.

        Yields
        ------
        object
            The results.

        Examples
        --------
        >>> from tercio import WorkerPool
        >>> with WorkerPool(n_jobs=2, start_method="threading") as pool:
        ...     sorted(pool.imap_unordered(abs, [-1, 2, -3]))
        [1, 2, 3]
        """
        return self._stream(
            "imap_unordered", False, func, iterable_of_args, iterable_len, max_tasks_active, chunk_size, n_splits,
            worker_lifespan, progress_bar, worker_init, worker_exit, task_timeout, worker_init_timeout,
            worker_exit_timeout, progress_bar_options, progress_bar_style, on_worker_death, max_retries, on_error,
        )  # fmt: skip

    def _collect(self, name: str, ordered: bool, *given: Any) -> list[Any]:
        mapping = Mapping(self, name, ordered, given)
        try:
            results = mapping.collect()
            mapping.end()
        except BaseException as error:
            mapping.fail(error)
            raise
        return results

    def _stream(self, name: str, ordered: bool, *given: Any) -> Generator[Any, None, None]:
        mapping = Mapping(self, name, ordered, given)
        try:
            yield from mapping.results()
            mapping.end()
        except BaseException as error:
            mapping.fail(error)
            raise

    # ---- Apply ----------------------------------------------------------------------------------------------

    def apply(
        self,
        func: Callable[..., R],
        args: Any = (),
        kwargs: dict[str, Any] | None = None,
        callback: Callable[[R], Any] | None = None,
        error_callback: Callable[[BaseException], Any] | None = None,
        worker_init: Callable[..., Any] | None = None,
        worker_exit: Callable[..., Any] | None = None,
        task_timeout: float | None = None,
        worker_init_timeout: float | None = None,
        worker_exit_timeout: float | None = None,
        *,
        on_worker_death: str = "raise",
        max_retries: int = 2,
        on_error: str = "raise",
    ) -> R:
        """Call a function in a worker and wait for its result.

        Parameters, errors and unpacking are those of ``apply_async``.

        Returns
        -------
        object
            What the function returned.

        Examples
        --------
        >>> from tercio import WorkerPool
        >>> with WorkerPool(n_jobs=2, start_method="threading") as pool:
        ...     pool.apply(pow, (2, 10))
        1024
        """
        bare = kwargs is None and callback is None and error_callback is None and task_timeout is None
        bare = bare and worker_init is None and worker_exit is None and type(args) is tuple
        if bare and worker_init_timeout is None and worker_exit_timeout is None:
            ready = self._session.ready_as_before(func)
            if ready is not None and (on_worker_death, max_retries, on_error) == ("raise", 2, "raise"):
                value: R = ready[0].apply_wait(ready[1], args)
                return value
        result = self.apply_async(
            func, args, kwargs, callback, error_callback, worker_init, worker_exit, task_timeout, worker_init_timeout,
            worker_exit_timeout, on_worker_death=on_worker_death, max_retries=max_retries, on_error=on_error,
        )  # fmt: skip
        return result.get()

    def apply_async(
        self,
        func: Callable[..., R],
        args: Any = (),
        kwargs: dict[str, Any] | None = None,
        callback: Callable[[R], Any] | None = None,
        error_callback: Callable[[BaseException], Any] | None = None,
        worker_init: Callable[..., Any] | None = None,
        worker_exit: Callable[..., Any] | None = None,
        task_timeout: float | None = None,
        worker_init_timeout: float | None = None,
        worker_exit_timeout: float | None = None,
        *,
        on_worker_death: str = "raise",
        max_retries: int = 2,
        on_error: str = "raise",
    ) -> AsyncResult[R]:
        """Have a worker call a function, and return at once.

        Where `max_pending` tasks of the pool are queued or running already, it waits until one of them is finished. A
        signal's handler runs meanwhile, and an exception of its own (KeyboardInterrupt) ends the wait; the task isn't
        queued then. In a callback, and in a task that a thread of this pool runs, it never waits.

        Parameters
        ----------
        func : callable
            What to call.
        args : iterable or object
            Positional arguments; what isn't iterable, a str, bytes and a numpy array are the one argument.
        kwargs : dict, optional
            Keyword arguments.
        callback, error_callback : callable, optional
            Called in this process with the result, or with the exception, in the order in which tasks finish.
        worker_init, worker_exit : callable, optional
            As in ``map``; the first apply sets them for the pool's life.
        task_timeout, worker_init_timeout, worker_exit_timeout : int or float, optional
            Limits in seconds.
        on_worker_death, max_retries
            As in ``map``.
        on_error : str
            ``"raise"``: a failure is raised by ``get`` and goes to `error_callback`. ``"return"``: the exception is
            the result, for ``get`` and `callback` alike.

        Returns
        -------
        tercio.async_result.AsyncResult
            The result to be.

        Raises
        ------
        TypeError, ValueError
            If a parameter is of the wrong type or out of range; no worker is started.
        RuntimeError
            If the pool ends, or fails, while the call waits.

        Examples
        --------
        >>> from tercio import WorkerPool
        >>> with WorkerPool(n_jobs=2, start_method="threading") as pool:
        ...     results = [pool.apply_async(pow, (2, n)) for n in range(4)]
        ...     [result.get() for result in results]
        [1, 2, 4, 8]
        """
        bare = kwargs is None and callback is None and error_callback is None and task_timeout is None
        bare = bare and worker_init is None and worker_exit is None and type(args) is tuple
        if bare and worker_init_timeout is None and worker_exit_timeout is None:
            ready = self._session.ready_as_before(func)
            if ready is not None and (on_worker_death, max_retries, on_error) == ("raise", 2, "raise"):
                return ready[0].apply(ready[1], args)
        _shutdown.check()
        check_function("func", func, none_allowed=False)
        for name, function in (
            ("callback", callback),
            ("error_callback", error_callback),
            ("worker_init", worker_init),
            ("worker_exit", worker_exit),
        ):
            check_function(name, function)
        if kwargs is not None and not isinstance(kwargs, dict):
            raise TypeError(f"kwargs must be a dict or None, not {type(kwargs).__name__}")
        if callback is not None or error_callback is not None:
            import threading  # noqa: F401  # they run in a thread of ours, see Session._start

            callback, error_callback = framed(callback), framed(error_callback)
        limit = check_timeout("task_timeout", task_timeout)
        init_limit = check_timeout("worker_init_timeout", worker_init_timeout)
        exit_limit = check_timeout("worker_exit_timeout", worker_exit_timeout)
        retries, return_errors = check_policy(on_worker_death, max_retries, on_error)
        session = self._session
        was_there = session.core
        core, call = session.ready_for_apply(func, worker_init, worker_exit, init_limit, exit_limit)
        if core is not was_there:
            _shutdown.add(self)
        return core.apply(
            call,
            arguments(args),
            kwargs,
            callback=callback,
            error_callback=error_callback,
            task_timeout=limit,
            retries=retries,
            return_errors=return_errors,
        )

    # ---- The end --------------------------------------------------------------------------------------------

    def stop_and_join(self, keep_alive: bool = False) -> None:
        """Wait for all work, run the exit functions, collect their results and end the workers.

        Parameters
        ----------
        keep_alive : bool
            Wait for the work alone; the workers live on.

        Raises
        ------
        RuntimeError
            If a map call is under way: a lazy one must be exhausted or closed first.
        Exception
            What an exit function raised.

        Examples
        --------
        >>> from tercio import WorkerPool
        >>> pool = WorkerPool(n_jobs=2, start_method="threading")
        >>> result = pool.apply_async(pow, (2, 3))
        >>> pool.stop_and_join()
        >>> result.get()
        8
        """
        self._session.check_process()
        running = self._session.running
        if running is not None:
            raise RuntimeError(f"Cannot call 'stop_and_join' while {running.name!r} is running; exhaust or close it")
        if keep_alive:
            self._session.wait_idle()
            return
        try:
            self._session.finish()
        except KeyboardInterrupt:
            self.terminate()
            raise
        finally:
            self._forget_if_gone()

    def join(self, keep_alive: bool = False) -> None:
        """Another name of ``stop_and_join``.

        Parameters
        ----------
        keep_alive : bool
            Wait for the work alone; the workers live on.

        Examples
        --------
        >>> from tercio import WorkerPool
        >>> with WorkerPool(n_jobs=2, start_method="threading") as pool:
        ...     results = [pool.apply_async(abs, (value,)) for value in (-1, -2)]
        ...     pool.join()
        ...     [result.get() for result in results]
        [1, 2]
        """
        self.stop_and_join(keep_alive)

    def terminate(self) -> None:
        """Interrupt what runs and end the workers: softly first, by force after a second.

        Returns with no worker process left. The pool may be used again afterwards. In a process that was forked
        from the pool's, this does nothing.

        Examples
        --------
        >>> from tercio import WorkerPool
        >>> pool = WorkerPool(n_jobs=2, start_method="threading", keep_alive=True)
        >>> pool.map(abs, [-1, -2])
        [1, 2]
        >>> pool.terminate()
        """
        if not self._session.is_ours:
            return
        try:
            self._session.drop()
        finally:  # the warning of a thread that stays may be an error
            self._session.running = None
            self._forget_if_gone()

    def _forget_if_gone(self) -> None:
        if self._session.core is None:
            _shutdown.discard(self)

    def __enter__(self) -> WorkerPool:
        self._session.check_process()
        return self

    def __exit__(self, *_: object) -> None:
        self.terminate()

    def __reduce__(self) -> Any:
        raise NotImplementedError(
            "A WorkerPool can't be pickled or handed to another process; make one where it is needed"
        )

    def __repr__(self) -> str:
        params = self.pool_params
        return f"<WorkerPool n_jobs={params.n_jobs} start_method={params.start_method!r}>"

    # ---- What became of it ----------------------------------------------------------------------------------

    def get_exit_results(self) -> list[Any]:
        """What the exit functions of the last workers returned.

        Returns
        -------
        list
            In the order in which workers ended.

        Examples
        --------
        >>> from tercio import WorkerPool
        >>> def count(state, _):
        ...     state["calls"] = state.get("calls", 0) + 1
        >>> def total(state):
        ...     return state.get("calls", 0)
        >>> with WorkerPool(n_jobs=2, start_method="threading", use_worker_state=True) as pool:
        ...     _ = pool.map(count, range(10), worker_exit=total)
        ...     sum(pool.get_exit_results())
        10
        """
        return self._session.exit_results()

    def stats(self) -> list[dict[str, Any]]:
        """What each worker is and did, from counters in shared memory.

        Returns
        -------
        list of dict
            One a worker: ``worker``, ``pid``, ``state``, ``tasks``, ``restarts``, the seconds ``start``, ``init``,
            ``wait``, ``work``, ``exit``, how the last one ended that died (``died``: ``"SIGKILL"``, ``"exit code 3"``,
            ``"unknown"``; None if none did), and, with insights on, ``longest``: (seconds, index) of the tasks that
            took longest.

        Examples
        --------
        >>> from tercio import WorkerPool
        >>> with WorkerPool(n_jobs=2, start_method="threading") as pool:
        ...     _ = pool.map(abs, range(10))
        ...     sum(worker["tasks"] for worker in pool.stats())
        10
        """
        return self._session.stats()

    def get_insights(self) -> dict[str, Any]:
        """What the workers did with their time.

        Returns
        -------
        dict
            See the documentation of insights. Empty without ``enable_insights=True`` or before any work.

        Examples
        --------
        >>> from tercio import WorkerPool
        >>> with WorkerPool(n_jobs=2, start_method="threading", enable_insights=True) as pool:
        ...     _ = pool.map(abs, range(10))
        ...     sum(pool.get_insights()["n_completed_tasks"])
        10
        """
        if not self.pool_params.enable_insights:
            return {}
        from tercio.insights import get_insights

        return get_insights(self._session.stats())

    def print_insights(self) -> None:
        """Print what the workers did with their time.

        Examples
        --------
        >>> from tercio import WorkerPool
        >>> with WorkerPool(n_jobs=2, start_method="threading", enable_insights=True) as pool:
        ...     _ = pool.map(abs, range(10))
        ...     pool.print_insights()
        WorkerPool insights
        -------------------
        Tasks completed: 10
        Total start up time: ...
        """
        from tercio.insights import insights_string

        print(insights_string(self.get_insights()))
