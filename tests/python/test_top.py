"""`tercio top`: another process's pools, seen without its help."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
from pathlib import Path

import hypothesis
import hypothesis.strategies
import pytest
from tercio import _top

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

BOUND = 50  # seconds, against a hang

PROGRAM = """
import os, sys
from tercio import WorkerPool

def wait(value):
    os.write(1, b".")
    with open(sys.argv[1], "rb", buffering=0) as gate:
        gate.read(1)

if __name__ == "__main__":
    # A worker that has begun a second task has counted its first ones.
    with WorkerPool(3, start_method=sys.argv[2], keep_alive=True) as pool:
        pool.map(abs, range(6), chunk_size=1)
        pool.map(wait, range(3), chunk_size=1)
"""


@pytest.fixture
def program(tmp_path: Path, process_method: str) -> Iterator[subprocess.Popen[bytes]]:
    """A program whose three workers hang in a task each, and have done six before."""
    script, gate = tmp_path / "program.py", tmp_path / "gate"
    script.write_text(PROGRAM, "utf-8")
    os.mkfifo(gate)
    command = [sys.executable, str(script), str(gate), process_method]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.read(3) == b"..."
            yield process
        finally:
            process.kill()


def test_a_process_that_hangs_is_seen(program: subprocess.Popen[bytes], process_method: str) -> None:
    """Stopped, it can't help; what it had counted is there, and reading changes nothing."""
    os.kill(program.pid, signal.SIGSTOP)
    command = [sys.executable, "-m", "tercio._cli", "top", str(program.pid)]
    done = subprocess.run([*command, "--once", "--json"], capture_output=True, timeout=BOUND, check=True)
    (pool,) = json.loads(done.stdout)
    states = [worker["state"] for worker in pool["workers"]]
    assert (pool["pid"], pool["method"], states.count("work")) == (program.pid, process_method, 3)
    assert sum(worker["tasks"] for worker in pool["workers"]) == 6
    assert all(worker["running"] >= 0 for worker in pool["workers"] if worker["state"] == "work")
    assert all(worker["start"] > 0 for worker in pool["workers"])
    done = subprocess.run([*command, "--once"], capture_output=True, timeout=BOUND, check=True)
    assert f"{process_method}: 3 of 3 busy, 6 tasks" in done.stdout.decode()


def test_live_on_a_terminal(program: subprocess.Popen[bytes], process_method: str) -> None:
    """It draws on the other screen, and Ctrl-C gives the first one back."""
    if process_method != "fork":
        pytest.skip("the drawing is the same for all")
    child, terminal = pty.fork()
    if child == 0:
        env = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "20"}
        os.execve(sys.executable, [sys.executable, "-m", "tercio._cli", "top", str(program.pid), "-n", "0.05"], env)
    try:
        seen = read_until(terminal, b"3 of 3 busy")
        assert b"\x1b[?1049h" in seen
        read_until(terminal, b"3 of 3 busy")  # drawn again
        os.write(terminal, b"\x03")
        assert b"\x1b[?1049l" in read_until(terminal, None)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) in (0, 130)
    finally:
        os.close(terminal)


def read_until(terminal: int, text: bytes | None) -> bytes:
    """What a terminal shows, up to a text or (None) to its end."""
    seen = b""
    while text is None or text not in seen:
        assert select.select([terminal], [], [], BOUND)[0], seen
        try:
            block = os.read(terminal, 4096)
        except OSError:
            block = b""
        if not block:
            assert text is None, seen
            break
        seen += block
    return seen


def test_who_is_not_there() -> None:
    """One line, exit code 1."""
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    command = [sys.executable, "-m", "tercio._cli", "top", "--once", str(gone.pid)]
    done = subprocess.run(command, capture_output=True, timeout=BOUND, check=False)
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"there is no process" in done.stderr


def test_it_never_draws_without_a_pause() -> None:
    """An interval of nothing would take a CPU."""
    for given in ("0", "nan", "x"):
        command = [sys.executable, "-m", "tercio._cli", "top", "-n", given]
        done = subprocess.run(command, capture_output=True, timeout=BOUND, check=False)
        assert (done.returncode, done.stdout) == (2, b"")
        assert b"invalid number of seconds" in done.stderr


def test_only_what_is_a_pool_of_this_layout(tmp_path: Path) -> None:
    """Files that look like a pool's from outside aren't believed; another version says so."""
    path = tmp_path / "file"
    for content in (b"", b"\0" * 8192, os.urandom(8192)):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"small|not a pool"):
            _top.PoolFile(path)
    head = struct.pack("<QII", _top.MAGIC, _top.VERSION + 1, 1)
    path.write_bytes(head + b"\0" * 8192)
    with pytest.raises(ValueError, match="layout"):
        _top.PoolFile(path)
    path.write_bytes(struct.pack("<QIIQ", _top.MAGIC, _top.VERSION, 60_000, 1 << 40) + b"\0" * 8192)
    with pytest.raises(ValueError, match="not a pool"):
        _top.PoolFile(path)


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="takes a file without a name")
@hypothesis.settings(deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])  # on any machine
@hypothesis.given(
    head=hypothesis.strategies.binary(max_size=64),
    numbers=hypothesis.strategies.tuples(
        hypothesis.strategies.integers(0, 2**32 - 1),
        hypothesis.strategies.integers(0, 2**64 - 1),
        hypothesis.strategies.integers(-(2**31), 2**31 - 1),
    ),
    rest=hypothesis.strategies.binary(max_size=2048),
    known=hypothesis.strategies.booleans(),
)
def test_any_bytes_at_all(head: bytes, numbers: tuple[int, int, int], rest: bytes, known: bool) -> None:
    """Memory that holds anything is refused by name, or read within its bounds."""
    descriptor = os.memfd_create("tercio", os.MFD_CLOEXEC)
    try:
        os.pwrite(descriptor, bytes(3 * _top.PAGE_BYTES), 0)
        n_workers, stride, method = numbers
        if known:  # or nothing but the magic would ever be looked at
            stride %= 3 * _top.PAGE_BYTES
            head = struct.pack(
                "<QIIQQQQii", _top.MAGIC, _top.VERSION, n_workers % 4, stride, 0, 0, 0, method, os.getpid()
            )
        os.pwrite(descriptor, head, 0)
        os.pwrite(descriptor, rest, _top.PAGE_BYTES + _top.WORDS_AT % 448)
        try:
            pool = _top.PoolFile(Path(f"/proc/self/fd/{descriptor}"))
        except ValueError:
            return
        try:
            for worker in pool.workers():
                assert worker["state"] in _top.STATES
                assert worker["running"] is None or worker["running"] >= 0
        finally:
            pool.close()
    finally:
        os.close(descriptor)
