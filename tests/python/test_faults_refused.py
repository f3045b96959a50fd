"""Kernels from 4.18 on, and sandboxes: the same without pidfd, memfd and fallocate. See tests/c/refuse.c."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
BUILD = Path(os.environ.get("TERCIO_BUILD", HERE.parents[1] / "build" / "c"))
REFUSE = BUILD / "tests" / "c" / "refuse"

BODY = f"""
import array, multiprocessing, os, signal, sys, time
sys.path.insert(0, {str(HERE)!r})
from support import descendants, descriptors
from tercio import WorkerPool
from tercio.exception import WorkerDiedError

def double(shared, i):
    return 2 * i + shared[-1]

def die(shared, i):
    os.kill(os.getpid(), signal.SIGKILL if i == 3 else 0)
    return i

def crash(shared, i):
    import ctypes
    ctypes.string_at(0)

def sleep(shared, i):
    time.sleep(1000)

def large(shared, data):
    return bytes(data)

def once(method):
    shared = array.array("q", range(100_000))
    with WorkerPool(2, start_method=method, shared_objects=shared, keep_alive=True) as pool:
        more = shared[-1]
        assert pool.map(double, range(100)) == [2 * i + more for i in range(100)]
        data = bytes(range(256)) * 40_000
        assert pool.map(large, [(data,)] * 4, chunk_size=1) == [data] * 4
        found = pool.map(die, range(8), chunk_size=1, on_error="return")
        assert isinstance(found[3], WorkerDiedError) and found[3].signal == 9, found
        assert found[:3] + found[4:] == [0, 1, 2, 4, 5, 6, 7]
        (error,) = pool.map(crash, [1], on_error="return")
        assert error.signal == signal.SIGSEGV and "string_at" in error.stack, error.stack
        try:
            pool.map(sleep, [1], task_timeout=0.05)
            raise AssertionError
        except TimeoutError:
            pass
        running = pool.apply_async(sleep, (1,))
        assert running.cancel()
        children = multiprocessing.active_children()
        assert len(children) == 2, children
        children[0].kill()
        if method != "forkserver":  # whose workers are the server's children
            children[0].join()
        assert pool.map(double, range(100)) == [2 * i + more for i in range(100)]
        pool.stop_and_join()

if __name__ == "__main__":
    method = sys.argv[1]
    once(method)
    before, files = descendants(os.getpid()), descriptors()
    once(method)
    assert descendants(os.getpid()) <= before
    assert len(descriptors()) <= len(files), (descriptors(), files)
    print("well")
"""


@pytest.mark.skipif(not REFUSE.exists(), reason="make test-c builds the program that refuses")
@pytest.mark.parametrize("error", ["EPERM", "ENOSYS"])
def test_without_what_newer_kernels_have(process_method, error, tmp_path):
    script = tmp_path / "program.py"
    script.write_text(BODY)
    names = "memfd_create,seals,fallocate,pidfd_open,pidfd_send_signal,wait_pidfd,clone_pidfd,close_range,dontdump"
    done = subprocess.run(
        [str(REFUSE), error, names, sys.executable, str(script), process_method],
        capture_output=True,
        text=True,
        timeout=55,
        check=False,
    )
    if done.returncode == 77:
        pytest.skip("no filter can be installed here")
    assert done.returncode == 0 and done.stdout == "well\n", done.stderr[-3000:]
