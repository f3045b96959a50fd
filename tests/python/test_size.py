"""How many workers a pool may have, and what each of them holds."""

from __future__ import annotations

import multiprocessing
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from support import descriptors
from tercio import WorkerPool

MANY = {"fork": 500, "forkserver": 200, "spawn": 20, "threading": 500}
# What workers run is built in, so that they import nothing for it: not this module, nor pytest with it.


def workers():
    return [child.pid for child in multiprocessing.active_children() if child.name.startswith("Worker-")]


def private(pid):
    """Bytes that this process alone has written; huge pages are the kernel's choice, and not counted."""
    rows = [row.split() for row in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]]
    sizes = {row[0]: 1024 * int(row[1]) for row in rows}
    return sizes["Private_Dirty:"] - sizes.get("AnonHugePages:", 0)


def room():
    """How many workers this machine gives us: half of what may be open, and half of what may run."""
    rooms = [resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2]
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        if names == "" or "pids" in names.split(","):
            group = Path("/sys/fs/cgroup", "pids" if names else "", path.lstrip("/"))
            for folder in (group, *group.parents):
                try:
                    rooms.append(int((folder / "pids.max").read_text()) // 2)
                except (OSError, ValueError):  # not readable, or "max"
                    continue
    return min(rooms)


def test_many_workers_start_work_and_stop(start_method):
    n = min(MANY[start_method], room())
    before = len(descriptors())
    with WorkerPool(n, start_method=start_method, keep_alive=True) as pool:
        assert pool.map(abs, range(-2 * n, 0), chunk_size=1) == list(range(2 * n, 0, -1))
        each = 0 if start_method == "threading" else 1
        assert len(descriptors()) - before <= each * n + 12


def test_a_worker_holds_few_descriptors(process_method):
    mine = set(descriptors().values())
    with WorkerPool(1, start_method=process_method, keep_alive=True) as pool:
        pool.map(abs, [0])
        (pid,) = workers()
        folder = Path(f"/proc/{pid}/fd")
        own = {int(entry.name): os.readlink(entry) for entry in folder.iterdir() if int(entry.name) > 2}
    if process_method == "fork":  # what the parent has is copied
        own = {number: name for number, name in own.items() if name not in mine}
    assert len(own) <= 6, own


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="the kernel doesn't say")
def test_an_idle_worker_is_an_interpreter_and_little_else():
    bare = subprocess.Popen(
        [sys.executable, "-c", "print(flush=True); input()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with bare, WorkerPool(2, start_method="spawn", keep_alive=True) as pool:
        bare.stdout.readline()
        pool.map(abs, range(20), chunk_size=1)
        grown = [private(pid) - private(bare.pid) for pid in workers()]
        bare.stdin.write(b"\n")
        bare.stdin.close()
    assert min(grown) <= 1 << 20, grown
