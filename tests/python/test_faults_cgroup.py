"""The kernel's own killing for want of memory, where a control group may be made; the verdict is its counter's."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = Path("/sys/fs/cgroup")
LIMIT = 256 << 20

PROGRAM = """
import os, signal, sys
sys.path.insert(0, {here!r})
import tasks
from tercio import WorkerPool
from tercio.exception import WorkerDiedError

def grow(value):
    if value == 3:
        held = []
        while True:
            held.append(b"x" * (8 << 20))
    return value

def kill(value):
    os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    with WorkerPool(2, start_method=sys.argv[1]) as pool:
        pool.map(tasks.double, range(4))
        try:
            pool.apply(kill, (1,))
        except WorkerDiedError as error:
            assert error.out_of_memory is False, error.out_of_memory  # killed, and not for that
        found = pool.map(grow, range(6), chunk_size=1, on_error="return")
        error = found[3]
        assert isinstance(error, WorkerDiedError), error
        assert error.signal == signal.SIGKILL
        print(error.out_of_memory, error.peak_rss > 64 << 20)
        assert found[:3] + found[4:] == [0, 1, 2, 4, 5]
        assert pool.map(tasks.double, range(20)) == [2 * i for i in range(20)]
"""


@pytest.fixture
def group():
    """A group whose memory is limited, below our own."""
    lines = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    mine = {name: path for _, names, path in lines for name in names.split(",")}
    if (ROOT / "memory" / "memory.limit_in_bytes").exists():
        parent, limit = ROOT / "memory" / mine.get("memory", "/").lstrip("/"), "memory.limit_in_bytes"
    else:
        parent, limit = ROOT / mine.get("", "/").lstrip("/"), "memory.max"
    made = parent / f"tercio-{os.getpid()}"
    try:
        made.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made: {error}")
    try:
        try:
            (made / limit).write_text(str(LIMIT))
        except OSError as error:
            pytest.skip(f"memory can't be limited there: {error}")
        for name in ("memory.memsw.limit_in_bytes", "memory.swap.max"):
            if (made / name).exists():
                (made / name).write_text(str(LIMIT) if "memsw" in name else "0")
        yield made
    finally:
        empty(made)
        made.rmdir()


def empty(group):
    """Kill who is in there, and wait until nobody is: a group with processes can't be removed."""
    while True:
        pids = [int(line) for line in (group / "cgroup.procs").read_text().split()]
        if not pids:
            return
        for pid in pids:
            try:
                handle = os.pidfd_open(pid)
            except ProcessLookupError:
                continue
            try:
                signal.pidfd_send_signal(handle, signal.SIGKILL)
                select.select([handle], [], [])
            except ProcessLookupError:
                pass
            finally:
                os.close(handle)


def test_killed_by_the_kernel_for_memory(process_method, group, tmp_path):
    script = tmp_path / "program.py"
    script.write_text(PROGRAM.format(here=str(HERE)))
    enter = f'echo $$ > "{group}/cgroup.procs" && exec "$@"'
    done = subprocess.run(
        ["sh", "-c", enter, "sh", sys.executable, str(script), process_method],
        capture_output=True,
        text=True,
        timeout=55,
        check=False,
    )
    assert done.returncode != -signal.SIGKILL, "the kernel chose the parent"
    assert done.returncode == 0, done.stderr[-3000:]
    # A version of the kernel's interface that has no counter there can't be asked.
    assert done.stdout in ("True True\n", "None True\n")
    counters = [group / name for name in ("memory.oom_control", "memory.events.local", "memory.events")]
    if any("oom_kill " in path.read_text() for path in counters if path.exists()):
        assert done.stdout == "True True\n"
