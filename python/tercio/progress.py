"""A map call's progress bar. It is fed by the workers' own counters, which the waiting call reads."""

from __future__ import annotations

import os

from tercio.tqdm_utils import get_tqdm

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from tercio.dashboard._report import Report
    from tercio.pool import WorkerPool


SHORTEST_INTERVAL = 0.02  # seconds


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
    name : str
        Which call it is; for the dashboard.

    Examples
    --------
    >>> from tercio.progress import ProgressBar
    >>> bar = ProgressBar("dashboard", {}, total=10)  # a bar that draws nothing
    >>> bar.update(10)
    >>> bar.close()
    """

    def __init__(
        self,
        style: str,
        options: dict[str, Any],
        total: int | None,
        pool: WorkerPool | None = None,
        func: Any = None,
        name: str = "map",
    ) -> None:
        # Nobody sees more than so many drawings a second; without a floor the waiting call would never sleep.
        self.interval = max(float(options.get("mininterval", 0.1)), SHORTEST_INTERVAL)
        # Without a monitor thread nothing corrects a guess of miniters that was too high: look at the clock alone.
        options = {"miniters": 0, **options}
        self._bar: Any = get_tqdm(style)(total=total, leave=True, **options)
        self._done = 0
        self._report: Report | None = None
        if pool is not None and os.environ.get("TERCIO_DASHBOARD"):
            from tercio.dashboard._report import open_report

            self._report = open_report(pool, func, total, name)

    def update(self, done: int) -> None:
        """Show that `done` tasks are finished."""
        if done > self._done and self._bar is not None:
            self._bar.update(done - self._done)
            self._done = done
        if self._report is not None:
            self._report.update(done)

    def complete(self) -> None:
        """Draw for the last time, and give the terminal back; the dashboard hears of the end by `close`."""
        bar, self._bar = self._bar, None
        if bar is not None:
            bar.close()

    def close(self, error: BaseException | None = None) -> None:
        """End the bar, with what went wrong. What workers counted is whole only when they are gone."""
        bar, self._bar = self._bar, None
        try:
            if bar is not None:
                if error is not None and not isinstance(error, GeneratorExit):
                    what = "failed" if isinstance(error, (Exception, SystemExit)) else "interrupted"
                    bar.set_postfix_str(f"{what}: {type(error).__name__}", refresh=False)
                bar.close()
        finally:
            report, self._report = self._report, None
            if report is not None:
                report.close(self._done, error)
