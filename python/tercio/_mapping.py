"""One map call on a pool, and what its arguments mean."""

from __future__ import annotations

from tercio import _numpy, _shutdown
from tercio._params import MapPlan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator, Iterable
    from typing import Any

    from tercio._core import MapRun
    from tercio.pool import WorkerPool
    from tercio.progress import ProgressBar


def arguments(args: Any) -> tuple[Any, ...]:
    """Positional arguments from what the user gave to apply, taken apart or passed whole as an element of a map is."""
    if isinstance(args, tuple):
        return args
    if isinstance(args, (str, bytes)) or _numpy.is_array(args) or not _is_iterable(type(args)):
        return (args,)
    return tuple(args)


def _is_iterable(kind: type) -> bool:
    """Whether instances have an ``__iter__``; the old sequence protocol and a metaclass's one don't count."""
    for base in kind.__mro__:
        if "__iter__" in vars(base):
            return vars(base)["__iter__"] is not None
    return False


class Mapping:
    """A map call from the check of its parameters to its end. It ends once, well (`end`) or not (`fail`)."""

    def __init__(self, pool: WorkerPool, name: str, ordered: bool, given: tuple[Any, ...]) -> None:
        self.pool = pool
        self.name = name
        self.run: MapRun | None = None
        self.bar: ProgressBar | None = None
        func, worker_init, worker_exit = given[0], given[8], given[9]
        pool._session.check_process()
        _shutdown.check()
        self.claim()
        try:
            self.plan = plan = MapPlan(pool.pool_params.n_jobs, *given)
            if plan.n_tasks == 0:
                return
            was_there = pool._session.core
            self.run = pool._session.map(plan, ordered, func, worker_init, worker_exit)
            if pool._session.core is not was_there:
                _shutdown.add(pool)
            if plan.progress is not None:
                from tercio.progress import ProgressBar

                self.bar = ProgressBar(*plan.progress, plan.n_tasks, pool, func, name)
        except BaseException as error:
            self.fail(error)
            raise

    def claim(self) -> None:
        session = self.pool._session
        with session.lock:
            running = session.running
            if running is None:
                session.running = self
                return
        text = "Cannot call 'map' while another 'map' is running"
        if (self.name, running.name) != ("map", "map"):
            text += f" ({self.name!r} was called, {running.name!r} is under way)"
        raise RuntimeError(text)

    def release(self) -> None:
        if self.pool._session.running is self:
            self.pool._session.running = None

    def collect(self) -> list[Any]:
        run, bar = self.run, self.bar
        if run is None:
            return []
        return run.collect() if bar is None else run.collect(bar.update, bar.interval)

    def results(self) -> Iterable[Any]:
        run, bar = self.run, self.bar
        if run is None:
            return ()
        return run if bar is None else self._watched(run, bar)

    def _watched(self, run: MapRun, bar: ProgressBar) -> Generator[Any, None, None]:
        import time

        shown = 0.0
        for result in run:
            now = time.monotonic()
            if now - shown >= bar.interval:
                shown = now
                bar.update(run.done)
            yield result

    def end(self) -> None:
        session = self.pool._session
        if self.bar is not None:
            assert self.run is not None
            self.bar.update(self.run.done)
            self.bar.complete()
        if self.run is not None and not self.pool.pool_params.keep_alive and session.applied is None:
            session.finish()
            self.pool._forget_if_gone()
        session.hear_workers()
        self.release()
        if self.bar is not None:
            bar, self.bar = self.bar, None
            bar.close()

    def fail(self, error: BaseException) -> None:
        session = self.pool._session
        superseded = session.running is not self  # the pool was terminated meanwhile, and may work on other things
        try:
            if self.run is not None:
                self.run.close()
            if self.run is not None and not superseded:
                kept = self.pool.pool_params.keep_alive or session.applied is not None
                interrupted = not isinstance(error, (Exception, GeneratorExit))
                core = session.core
                if core is not None and (not kept or interrupted or not core.alive()):
                    try:
                        session.drop()
                    except RuntimeWarning:
                        pass  # where warnings are errors: the caller hears of the error that led here
                    self.pool._forget_if_gone()
                session.hear_workers()
        finally:
            # The last of all: bars of nested pools still end with their workers, on lines below this one's.
            self.release()
            if self.bar is not None:
                bar, self.bar = self.bar, None
                bar.close(error)
