"""A map call's progress bar. It is fed by the workers' own counters, which the waiting call reads."""

from __future__ import annotations

from tercio.tqdm_utils import get_tqdm, loaded_dashboard

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from tercio.pool import WorkerPool


class ProgressBar:
    """A bar that is told how much is done so far, and shows on an error what happened.

    Parameters
    ----------
    style : str
        A style of ``tqdm_utils``.
    options : dict
        Checked options for tqdm.
    total : int or None
        Number of tasks; None: unknown.
    pool : WorkerPool, optional
        Whose call it is; for the dashboard.
    func : callable, optional
        What the call calls; for the dashboard.
    """

    def __init__(
        self,
        style: str,
        options: dict[str, Any],
        total: int | None,
        pool: WorkerPool | None = None,
        func: Any = None,
    ) -> None:
        self.interval = float(options.get("mininterval", 0.1))
        # Without a monitor thread nothing corrects a guess of miniters that was too high: look at the clock alone.
        options = {"miniters": 0, **options}
        self._bar = get_tqdm(style)(total=total, leave=True, **options)
        self._done = 0
        dashboard = loaded_dashboard()
        # The dashboard's own view of this bar: update(done) and close(error), like this one; None: not connected.
        self._reporter: Any = None if dashboard is None else dashboard.reporter(pool, func, total, options)

    def update(self, done: int) -> None:
        """Show that `done` tasks are finished."""
        if done > self._done:
            self._bar.update(done - self._done)
            self._done = done
            if self._reporter is not None:
                self._reporter.update(done)

    def close(self, error: BaseException | None = None) -> None:
        """Draw for the last time, with what went wrong, and give the terminal back."""
        try:
            if error is not None:
                what = "failed" if isinstance(error, (Exception, SystemExit)) else "interrupted"
                self._bar.set_postfix_str(f"{what}: {type(error).__name__}", refresh=False)
            self._bar.close()
        finally:
            if self._reporter is not None:
                self._reporter.close(error)
