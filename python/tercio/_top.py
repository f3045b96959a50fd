"""`tercio top`: what the workers of another process do, read from its pools' shared memory.

Nothing is asked of that process, so this works while it hangs or is stopped. Its memory is found by its descriptors,
mapped read-only, and believed only if its first words say that it is a pool of the layout that is known here. What is
read may change meanwhile; each number is a word of its own, so at worst two of them don't belong to the same moment.
Pools of threads keep their counters in memory of their process alone, and aren't seen.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
import sys
import time
from pathlib import Path

from tercio._core import ENGINE_VERSION as VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator
    from typing import Any

# Of engine/channel/layout.h. tests/python/test_top.py compares what is read with what the pool itself says.
MAGIC = 0x6F69637265743031
PAGE = struct.Struct("<QIIQQQQiiQ")  # magic, version, n_channels, channel_bytes, ring_bytes, (prepare), method, pid
PAGE_BYTES = max(4096, mmap.PAGESIZE)  # before the first channel
CHANNEL = struct.Struct("<QIIi4xQ")  # magic, index, generation, cpu, begun
WORDS_AT = 512
WORDS = struct.Struct("<I4xQQQQQQQQQ")  # phase, item_since, item_sequence, n_done, n_chunks, ns_...
METHODS = ("default", "fork", "spawn", "forkserver", "threading")
STATES = ("none", "start", "init", "wait", "work", "exit", "dead")
KINDS = ("start", "init", "wait", "work", "exit")
SHOWN = {"none": "-", "start": "starting", "init": "init", "wait": "waiting", "work": "busy", "exit": "exit"}
STYLES = {"start": "magenta", "init": "yellow", "wait": "dim", "work": "green", "exit": "blue", "dead": "red"}


class PoolFile:
    """The memory of one pool, mapped.

    Parameters
    ----------
    path : Path
        The descriptor that leads to it, in /proc.

    Raises
    ------
    ValueError
        If it isn't a pool's, or one of another layout.
    """

    def __init__(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            found = os.fstat(descriptor)
            self.inode = found.st_ino
            if found.st_size < PAGE_BYTES:
                raise ValueError("too small")
            head = os.pread(descriptor, PAGE.size, 0)
            magic, self.version, self.n_workers, self._stride, _, _, _, method, self.owner, _ = PAGE.unpack(head)
            if magic != MAGIC:
                raise ValueError("not a pool")
            if self.version != VERSION:
                raise ValueError(f"a pool of layout {self.version}, and this is a program for {VERSION}")
            size = PAGE_BYTES + self.n_workers * self._stride
            if not 0 < self.n_workers <= 1 << 16 or size > found.st_size or self._stride < WORDS_AT + WORDS.size:
                raise ValueError("not a pool")
            self.method = METHODS[method] if 0 <= method < len(METHODS) else "?"
            self._memory = mmap.mmap(descriptor, size, mmap.MAP_SHARED, mmap.PROT_READ)
        finally:
            os.close(descriptor)

    def close(self) -> None:
        """Unmap."""
        self._memory.close()

    def workers(self) -> list[dict[str, Any]]:
        """What each worker does and did."""
        now = time.monotonic_ns()
        found = []
        for index in range(self.n_workers):
            at = PAGE_BYTES + index * self._stride
            _, _, generation, cpu, _ = CHANNEL.unpack_from(self._memory, at)
            phase, since, _, done, chunks, *spent = WORDS.unpack_from(self._memory, at + WORDS_AT)
            state = STATES[phase] if phase < len(STATES) else "none"
            found.append(
                {
                    "worker": index,
                    "state": state,
                    "tasks": done,
                    "chunks": chunks,
                    "generation": generation,
                    "cpu": None if cpu < 0 else cpu,
                    "running": (now - since) / 1e9 if state == "work" and 0 < since <= now else None,
                    **dict(zip(KINDS, (each / 1e9 for each in spent))),
                }
            )
        return found


def pool_descriptors(pid: int) -> Iterator[Path]:
    """The descriptors of a process that may lead to a pool."""
    for path in sorted(Path(f"/proc/{pid}/fd").iterdir(), key=lambda path: int(path.name)):
        try:
            target = os.readlink(path)
        except OSError:
            continue
        # Where there is no memfd, a nameless file of /dev/shm or /tmp.
        if target.startswith(("/memfd:tercio", "/dev/shm/", "/tmp/")) and target.endswith(" (deleted)"):
            yield path


def pools_of(pid: int) -> list[PoolFile]:
    """The pools that a process has opened (and not those that it works for).

    Parameters
    ----------
    pid : int
        The process.

    Returns
    -------
    list of PoolFile
        To be closed by the caller.

    Raises
    ------
    ValueError
        If one is of another layout.
    OSError
        If the process is gone, or another user's.
    """
    found: dict[int, PoolFile] = {}
    for path in pool_descriptors(pid):
        try:
            pool = PoolFile(path)
        except (OSError, ValueError) as error:
            if "layout" in str(error):
                raise
            continue
        if pool.owner != pid or pool.inode in found:
            pool.close()
        else:
            found[pool.inode] = pool
    return list(found.values())


def processes() -> Iterator[int]:
    """Every process of this user's."""
    for path in Path("/proc").iterdir():
        if path.name.isdigit() and int(path.name) != os.getpid():
            try:
                if path.stat().st_uid == os.getuid():
                    yield int(path.name)
            except OSError:
                continue


def look(pid: int | None) -> list[dict[str, Any]]:
    """All pools of a process, or of all processes, with what their workers do."""
    answer = []
    for number in [pid] if pid is not None else sorted(processes()):
        try:
            pools = pools_of(number)
        except (OSError, ValueError):
            if pid is not None:
                raise
            continue
        for pool in pools:
            answer.append({"pid": number, "pool": pool.inode, "method": pool.method, "workers": pool.workers()})
            pool.close()
    return answer


def command_of(pid: int) -> str:
    """A process's command line."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return "?"


def draw(pools: list[dict[str, Any]], before: dict[Any, Any], rows: int) -> Any:
    """One picture. `before` holds the last numbers of tasks, and gets these."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    now = time.monotonic()
    parts: list[Any] = []
    left = rows - 1
    for pool in pools:
        workers = pool["workers"]
        total = sum(worker["tasks"] for worker in workers)
        key = (pool["pid"], pool["pool"])
        then, tasks = before.get(key, (now, total))
        before[key] = (now, total)
        speed = f"{(total - tasks) / (now - then):,.1f} tasks/s" if now > then and total >= tasks else ""
        busy = sum(worker["state"] == "work" for worker in workers)
        title = Text(f"{pool['pid']} ", style="bold", no_wrap=True, overflow="ellipsis")
        title.append(f"{command_of(pool['pid'])}", style="cyan")
        parts += [title, Text(f"{pool['method']}: {busy} of {len(workers)} busy, {total:,} tasks  {speed}")]
        left -= 4
        table = Table(box=None, pad_edge=False, expand=True)
        for name in ("worker", "state", "tasks", "this task"):
            table.add_column(name, justify="left" if name == "state" else "right", no_wrap=True)
        table.add_column("time: start init wait work exit", ratio=1, no_wrap=True)
        for worker in workers[: max(left, 1)]:
            state = worker["state"]
            running = "" if worker["running"] is None else f"{worker['running']:.1f} s"
            cell = Text(SHOWN.get(state, state), style=STYLES.get(state, ""))
            table.add_row(str(worker["worker"]), cell, f"{worker['tasks']:,}", running, shares(worker))
        left -= len(workers)
        parts.append(table)
        if left < 0:
            parts.append(Text(f"... and {-left} more workers", style="dim"))
    if not pools:
        parts.append(Text("No pool with workers right now."))
    return Group(*parts)


def shares(worker: dict[str, Any], width: int = 30) -> Any:
    """What a worker's time went to, as a bar."""
    from rich.text import Text

    total = sum(worker[kind] for kind in KINDS) or 1.0
    bar, drawn, passed = Text(), 0, 0.0
    for kind in KINDS:
        passed += worker[kind]
        until = round(passed / total * width)
        bar.append("━" * (until - drawn), style=STYLES[kind])
        drawn = until
    return bar


def run(options: argparse.Namespace) -> int:
    """The command."""
    pid = options.pid
    try:
        if options.json:
            print(json.dumps(look(pid)))
            return 0
        try:
            from rich.console import Console
            from rich.live import Live
        except ImportError:
            raise ImportError("tercio top needs rich: pip install 'tercio[top]'") from None
        console = Console()
        before: dict[Any, Any] = {}
        if options.once or not console.is_terminal:
            console.print(draw(look(pid), before, 1 << 16))
            return 0
        with Live(console=console, screen=True, auto_refresh=False) as live:
            while True:
                live.update(draw(look(pid), before, console.size.height), refresh=True)
                time.sleep(options.interval)
    except FileNotFoundError:
        print(f"tercio top: there is no process {pid}", file=sys.stderr)
    except PermissionError:
        print(f"tercio top: process {pid} is another user's", file=sys.stderr)
    except ValueError as error:
        print(f"tercio top: {error}", file=sys.stderr)
    return 1
