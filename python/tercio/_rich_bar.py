"""A bar drawn by rich, on a line of its own.

rich's live displays need a thread, and are one for a terminal; a bar that is drawn into a line needs neither, and can
stand at any position beside others.
"""

from __future__ import annotations

import io
import shutil

from rich.console import Console
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from tercio._bars import TerminalBar

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

BAR_WIDTH = 40


class RichBar(TerminalBar):
    """A bar on a line of a terminal, in rich's looks."""

    def __str__(self) -> str:
        state: Any = self.format_dict
        done, total, elapsed = state["n"], state["total"], state["elapsed"]
        rate = state["rate"] or ((done - state["initial"]) / elapsed if elapsed else None)
        cells: list[Any] = []
        if state["prefix"]:
            cells.append(Text(state["prefix"].rstrip(": ")))
        if total:
            cells.append(Text(f"{done / total:4.0%}", "progress.percentage"))
        complete = total is not None and done >= total
        cells.append(ProgressBar(total=total, completed=done, width=BAR_WIDTH, pulse=total is None))
        cells.append(Text(f"{self._count(done)}/{self._count(total)}" if total is not None else self._count(done),
                          "progress.download"))  # fmt: skip
        cells.append(Text(self.format_interval(elapsed), "progress.elapsed"))
        left = (total - done) / rate if total is not None and rate and not complete else None
        cells.append(
            Text("" if complete else "?" if left is None else self.format_interval(left), "progress.remaining")
        )
        cells.append(Text(f"{self._count(rate) if rate else '?'} {state['unit']}/s", "progress.data.speed"))
        if state["postfix"]:
            cells.append(Text(str(state["postfix"])))
        table = Table.grid(padding=(0, 1))
        table.add_row(*cells)
        width = state["ncols"] or shutil.get_terminal_size().columns
        console = Console(
            file=io.StringIO(), width=max(width - 1, 20), force_terminal=self._terminal, legacy_windows=False
        )
        with console.capture() as capture:
            console.print(table, no_wrap=True, overflow="ellipsis", crop=True)
        return capture.get().split("\n")[0]

    def _count(self, number: float) -> str:
        if self.unit_scale:
            return str(self.format_sizeof(number, divisor=self.unit_divisor))
        return f"{number:.2f}" if isinstance(number, float) else str(number)
