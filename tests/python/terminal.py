"""What a real terminal shows: a program runs on a pseudo-terminal whose output is drawn on a screen."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pyte

BOUND = 40  # seconds, against a hang


class Terminal:
    """A program on a screen of its own."""

    def __init__(self, program: Path, *arguments: str, rows: int = 12, columns: int = 100) -> None:
        self.screen = pyte.Screen(columns, rows)
        self.stream = pyte.ByteStream(self.screen)
        self.raw = b""
        self.seen, self.was_seen = None, False
        self.master, side = pty.openpty()
        fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

        def own_terminal() -> None:
            os.setsid()
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        self.process = subprocess.Popen(
            [sys.executable, str(program), *arguments],
            stdin=side,
            stdout=side,
            stderr=side,
            preexec_fn=own_terminal,
            cwd=program.parent,
            env={**os.environ, "TERM": "xterm", "PYTHONPATH": str(Path(__file__).parent), "COLUMNS": ""},
        )
        os.close(side)
        self.until = time.monotonic() + BOUND

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.master)

    def read(self) -> bool:
        """Take in what the program writes next; False at its end."""
        ready, _, _ = select.select([self.master], [], [], max(0, self.until - time.monotonic()))
        assert ready, f"nothing more is written, and the screen shows\n{self.text}"
        try:
            data = os.read(self.master, 65536)
        except OSError:
            data = b""
        self.raw += data
        # One read may hold many drawings, and somebody may wait for what stood there between two of them.
        for piece in re.split(rb"(?=\r)", data):
            self.stream.feed(piece)
            self.was_seen = self.was_seen or (self.seen is not None and self.seen(self.lines))
        return bool(data)

    def wait_for(self, seen) -> None:
        """Read until the lines of the screen are, or have been, as wanted."""
        self.seen, self.was_seen = seen, seen(self.lines)
        while not self.was_seen:
            assert self.read(), f"it ended, and the screen shows\n{self.text}"

    def finish(self) -> int:
        """Read to the end; the program's exit code."""
        while self.read():
            pass
        return self.process.wait(BOUND)

    def press(self, keys: bytes) -> None:
        """What a person types."""
        os.write(self.master, keys)

    @property
    def lines(self) -> list[str]:
        """The screen's lines that are not empty at its end."""
        lines = [line.rstrip() for line in self.screen.display]
        while lines and not lines[-1]:
            lines.pop()
        return lines

    @property
    def text(self) -> str:
        """The screen."""
        return "\n".join(self.lines)
