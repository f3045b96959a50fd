"""Styles of progress bars and their options.

A bar here is tqdm's, but for how it reaches the terminal: each drawing is one write. The terminal takes a write whole,
so bars of several processes, each at its own line, need no lock that they share; a worker that is killed while it
draws could never give one back.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["PROGRESS_BAR_DEFAULT_STYLE", "check_progress_bar", "get_tqdm"]

PROGRESS_BAR_DEFAULT_STYLE = "std"
STYLES = ("std", "rich", "notebook", "dashboard")

_DEFAULTS = {"position": 0, "dynamic_ncols": True, "mininterval": 0.1, "maxinterval": 0.5}


def get_tqdm(progress_bar_style: str | None) -> Any:
    """The tqdm class of a style.

    Parameters
    ----------
    progress_bar_style : str or None
        ``'std'``, ``'rich'``, ``'notebook'``, ``'dashboard'``; None: ``PROGRESS_BAR_DEFAULT_STYLE``.

    Returns
    -------
    type
        A subclass of tqdm's class. That of ``'dashboard'`` draws nothing.

    Raises
    ------
    ValueError
        If there is no such style.
    ImportError
        If the style needs a package that is missing.

    Examples
    --------
    >>> import io
    >>> from tercio.tqdm_utils import get_tqdm
    >>> screen = io.StringIO()
    >>> with get_tqdm("std")(total=10, file=screen) as bar:
    ...     _ = bar.update(10)
    >>> "10/10" in screen.getvalue()
    True
    """
    style = check_style(progress_bar_style)
    if style == "notebook":
        from tercio._notebook_bar import NotebookBar

        return NotebookBar
    if style == "rich":
        try:
            from tercio._rich_bar import RichBar
        except ImportError as error:
            raise ImportError("progress_bar_style='rich' needs rich: pip install tercio[rich]") from error
        return RichBar
    from tercio import _bars

    return _bars.TerminalBar if style == "std" else _bars.SilentBar


def check_style(style: object) -> str:
    """The style's name, the default resolved."""
    if style is None:
        style = PROGRESS_BAR_DEFAULT_STYLE
    if style not in STYLES:
        raise ValueError(f"progress_bar_style is {style!r}, but must be None or one of: {', '.join(map(repr, STYLES))}")
    assert isinstance(style, str)
    return style


def check_progress_bar(
    wanted: bool, options: dict[str, Any] | None, style: str | None
) -> tuple[str, dict[str, Any]] | None:
    """Style and options of a bar, checked by making one that shows nothing; None if no bar is wanted.

    Parameters
    ----------
    wanted : bool
        Whether there is to be a bar. If not, what is given is checked all the same.
    options : dict or None
        What the user gave for tqdm. It is not changed.
    style : str or None
        A style; None: ``PROGRESS_BAR_DEFAULT_STYLE``.

    Returns
    -------
    tuple of str and dict, or None
        The style's name, and the options with our defaults.

    Examples
    --------
    >>> from tercio.tqdm_utils import check_progress_bar
    >>> style, options = check_progress_bar(True, {"desc": "files"}, None)
    >>> style, options["desc"], options["mininterval"]
    ('std', 'files', 0.1)
    """
    name = check_style(style)
    if options is not None and not isinstance(options, dict):
        raise TypeError(f"progress_bar_options must be a dict or None, not {type(options).__name__}")
    if not wanted and not options:
        return None
    chosen = dict(options or {})
    for key in chosen:
        if not isinstance(key, str):
            raise TypeError(f"progress_bar_options has the key {key!r}, but names of options are str")
    for ours in ("total", "leave"):
        if ours in chosen:
            if wanted:
                _warn_of(ours)
            del chosen[ours]
    chosen = {**_DEFAULTS, **chosen}
    if chosen["position"] is None:
        chosen["position"] = _DEFAULTS["position"]
    kind = get_tqdm(name)
    _try_out(get_tqdm("std") if name == "notebook" else kind, chosen)  # a widget would stay behind
    return (name, chosen) if wanted else None


def _warn_of(option: str) -> None:
    from tercio._warn import warn

    warn(f"progress_bar_options: {option!r} is the pool's to set, the given value is not used", RuntimeWarning)


def _try_out(kind: Any, options: dict[str, Any]) -> None:
    # With disable=True tqdm checks nothing, so the bar is real, and writes into the void.
    import io

    position = options["position"]
    if not isinstance(position, int) or isinstance(position, bool):
        raise TypeError(f"progress_bar_options: 'position' must be an int, not {type(position).__name__}")
    if position < 0:
        raise ValueError(f"progress_bar_options: 'position' is {position}, but must be at least 0")
    interval = options["mininterval"]
    if not isinstance(interval, (int, float)) or interval < 0:
        raise ValueError(f"progress_bar_options: 'mininterval' is {interval!r}, but must be a number of seconds")
    silent = {**options, "disable": False, "delay": 0, "leave": False}
    silent["file"] = io.BytesIO() if options.get("write_bytes") else io.StringIO()
    kind(total=1, **silent).close()


def __getattr__(name: str) -> Any:
    if name == "tqdm":
        return get_tqdm("std")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
