"""A bar that is a widget in a notebook."""

from __future__ import annotations

from typing import Any

import tqdm.notebook

from tercio._bars import LOCK, OwnRefresh

_Tqdm: Any = tqdm.notebook.tqdm_notebook
if getattr(tqdm.notebook, "IProgress", None) is None:
    raise ImportError("progress_bar_style='notebook' needs ipywidgets: pip install ipywidgets")


class NotebookBar(OwnRefresh, _Tqdm):  # type: ignore[misc]
    """tqdm's widget, without its thread and its lock."""

    monitor_interval = 0
    _lock = LOCK
