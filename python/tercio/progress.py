"""A map call's progress bar. It is fed by the workers' own counters, which the waiting call reads."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


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
    """

    def __init__(self, style: str, options: dict[str, Any], total: int | None) -> None:
        from tercio.tqdm_utils import get_tqdm

        self.interval = float(options.get("mininterval", 0.1))
        # Without a monitor thread nothing corrects a guess of miniters that was too high: look at the clock alone.
        options = {"miniters": 0, **options}
        self._bar = get_tqdm(style)(total=total, leave=True, **options)
        self._done = 0

    def update(self, done: int) -> None:
        """Show that `done` tasks are finished."""
        if done > self._done:
            self._bar.update(done - self._done)
            self._done = done

    def close(self, error: BaseException | None = None) -> None:
        """Draw for the last time, with what went wrong, and give the terminal back."""
        if error is not None:
            name = type(error).__name__
            self._bar.set_postfix_str(f"{'interrupted' if isinstance(error, KeyboardInterrupt) else 'failed'}: {name}")
        else:
            self._bar.refresh()
        self._bar.close()
