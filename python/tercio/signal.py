"""Ctrl-C held back for a while, for programs that import these names from mpire. Pools don't need them."""

from __future__ import annotations

import signal as _signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import Any

__all__ = ["DelayedKeyboardInterrupt", "DisableKeyboardInterruptSignal", "ignore_keyboard_interrupt"]


class DelayedKeyboardInterrupt:
    """Delays Ctrl-C until the end of a ``with`` block. Does nothing outside the main thread.

    Examples
    --------
    >>> import signal
    >>> from tercio.signal import DelayedKeyboardInterrupt
    >>> done = []
    >>> try:
    ...     with DelayedKeyboardInterrupt():
    ...         signal.raise_signal(signal.SIGINT)
    ...         done.append("the block")
    ... except KeyboardInterrupt:
    ...     done.append("the interrupt")
    >>> done
    ['the block', 'the interrupt']
    """

    def __init__(self) -> None:
        self.signal_received: tuple[int, FrameType | None] | None = None
        self._before: Any = None
        self._is_set = False

    def __enter__(self) -> None:
        self.signal_received = None
        self._before = _signal.getsignal(_signal.SIGINT)
        self._is_set = _set_in_main_thread(self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal_received = number, frame

    def __exit__(self, *_: object) -> None:
        if not self._is_set:
            return
        _set_in_main_thread(self._before)
        if self.signal_received is not None and callable(self._before):
            self._before(*self.signal_received)


class DisableKeyboardInterruptSignal:
    """Ignores Ctrl-C in a ``with`` block, and in programs started there. Does nothing outside the main thread.

    Examples
    --------
    >>> import signal
    >>> from tercio.signal import DisableKeyboardInterruptSignal
    >>> with DisableKeyboardInterruptSignal():
    ...     signal.raise_signal(signal.SIGINT)
    """

    def __init__(self) -> None:
        self._before: Any = None
        self._is_set = False

    def __enter__(self) -> None:
        self._before = _signal.getsignal(_signal.SIGINT)
        self._is_set = _set_in_main_thread(_signal.SIG_IGN)

    def __exit__(self, *_: object) -> None:
        if self._is_set:
            _set_in_main_thread(self._before)


def ignore_keyboard_interrupt() -> None:
    """Ignore Ctrl-C in this process from now on.

    Raises
    ------
    ValueError
        If this isn't the main thread.

    Examples
    --------
    >>> import signal
    >>> from tercio.signal import ignore_keyboard_interrupt
    >>> before = signal.getsignal(signal.SIGINT)
    >>> ignore_keyboard_interrupt()
    >>> signal.raise_signal(signal.SIGINT)
    >>> _ = signal.signal(signal.SIGINT, before)
    """
    _signal.signal(_signal.SIGINT, _signal.SIG_IGN)


def _set_in_main_thread(handler: Any) -> bool:
    """Whether SIGINT has this handler now; not in another thread, nor where the earlier one is none of Python's."""
    import threading

    if handler is None or threading.current_thread() is not threading.main_thread():
        return False
    _signal.signal(_signal.SIGINT, handler)
    return True
