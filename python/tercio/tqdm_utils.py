"""Styles of progress bars and their options."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["PROGRESS_BAR_DEFAULT_STYLE", "check_progress_bar", "get_tqdm"]

PROGRESS_BAR_DEFAULT_STYLE = "std"
STYLES = ("std", "rich", "notebook", "dashboard")

_DEFAULTS = {"position": 0, "dynamic_ncols": True, "mininterval": 0.1, "maxinterval": 0.5}
_classes: dict[str, Any] = {}


def get_tqdm(progress_bar_style: str | None) -> Any:
    """The tqdm class of a style.

    Parameters
    ----------
    progress_bar_style : str or None
        ``'std'``, ``'rich'``, ``'notebook'``; None: ``PROGRESS_BAR_DEFAULT_STYLE``.

    Returns
    -------
    type
        A subclass of tqdm's class of that style.

    Raises
    ------
    ValueError
        If there is no such style.
    NotImplementedError
        For ``'dashboard'``, for now.
    """
    style = check_style(progress_bar_style)
    if style == "dashboard":
        raise NotImplementedError("the progress bar style 'dashboard' is not implemented yet")
    if style not in _classes:
        base: Any
        if style == "std":
            from tqdm.std import tqdm as base
        elif style == "rich":
            from tqdm.rich import tqdm_rich as base
        else:
            from tqdm.notebook import tqdm_notebook as base
        # tqdm's monitor is a thread that wakes slow bars up. Ours are woken by the call that waits for results, and
        # a thread in the parent would make every fork a risk.
        _classes[style] = type(f"Tercio{base.__name__}", (base,), {"monitor_interval": 0})
    return _classes[style]


def check_style(style: object) -> str:
    """The style's name, the default resolved."""
    if style is None:
        return PROGRESS_BAR_DEFAULT_STYLE
    if style not in STYLES:
        raise ValueError(f"progress_bar_style is {style!r}, but must be None or one of: {', '.join(map(repr, STYLES))}")
    assert isinstance(style, str)
    return style


def check_progress_bar(
    wanted: bool, options: dict[str, Any] | None, style: str | None
) -> tuple[str, dict[str, Any]] | None:
    """Style and options of a bar, checked by making one that shows nothing; None if no bar is wanted."""
    name = check_style(style)
    if options is not None and not isinstance(options, dict):
        raise TypeError(f"progress_bar_options must be a dict or None, not {type(options).__name__}")
    if not wanted:
        return None
    chosen = dict(options or {})
    for key in chosen:
        if not isinstance(key, str):
            raise TypeError(f"progress_bar_options has the key {key!r}, but names of options are str")
    for ours in ("total", "leave"):
        if ours in chosen:
            from tercio._warn import warn

            warn(f"progress_bar_options: {ours!r} is the pool's to set, the given value is not used", RuntimeWarning)
            del chosen[ours]
    chosen = {**_DEFAULTS, **chosen}
    _try_out(get_tqdm("std" if name != "dashboard" else name), chosen)
    get_tqdm(name)
    return name, chosen


def _try_out(kind: Any, options: dict[str, Any]) -> None:
    # With disable=True tqdm checks nothing, so the bar is real and writes into the void, at a place of its own.
    import io

    silent = {**options, "file": io.StringIO(), "disable": False, "gui": False, "delay": 0, "leave": False}
    position = silent["position"]
    if position is not None and not isinstance(position, int):
        kind_name = type(position).__name__
        raise TypeError(f"progress_bar_options: 'position' must be an int or None, not {kind_name}")
    kind(total=1, **silent).close()
