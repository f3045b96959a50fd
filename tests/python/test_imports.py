"""Modules that another thread is in the middle of importing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import _thread, importlib, sys
import tercio.pool

method, name = sys.argv[1:]

class Blocks:  # finds one module, whose import stops when it is in sys.modules and has no names yet
    def find_spec(self, wanted, path=None, target=None):
        if wanted != name:
            return None
        sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(wanted, path)
        run, self.loader = spec.loader.exec_module, spec.loader

        def exec_module(module):
            begun.release()
            goes_on.acquire()
            run(module)

        spec.loader.exec_module = exec_module
        return spec

def load():
    importlib.import_module(name)
    done.release()

if __name__ == "__main__":
    import importlib.machinery
    begun, goes_on, done = (_thread.allocate_lock() for _ in range(3))
    for lock in (begun, goes_on, done):
        lock.acquire()
    assert name not in sys.modules, name
    sys.meta_path.insert(0, Blocks())
    _thread.start_new_thread(load, ())
    begun.acquire()
    assert name in sys.modules
    with tercio.WorkerPool(2, start_method=method, keep_alive=True) as pool:
        print(pool.apply(abs, (-1,)), pool.map(abs, [-2, -3]))
        goes_on.release()
        done.acquire()
        print(pool.apply(abs, (-4,)), pool.map(abs, [-5]))
    with tercio.WorkerPool(2, start_method=method) as pool:
        pool.apply(abs, (-1,))
        if name == "multiprocessing.process" and method != "threading":
            print(len(sys.modules[name].active_children()), "children")
"""
NAMES = [
    "multiprocessing.context",
    "multiprocessing.process",
    "multiprocessing.spawn",
    "multiprocessing.util",
    "tercio._log",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_module_that_is_half_imported_is_left_alone(start_method, name, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(program), start_method, name],
        capture_output=True, text=True, timeout=55, check=False, env=environment, cwd=Path(__file__).parent,
    )  # fmt: skip
    assert (done.stderr, done.returncode) == ("", 0)
    lines = ["1 [2, 3]", "4 [5]"]
    if name == "multiprocessing.process" and start_method != "threading":
        lines.append("2 children")
    assert done.stdout.splitlines() == lines
