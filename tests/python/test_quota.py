"""What a container's CPU quota leaves, where a control group may be made."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tercio import usable_cpu_count

ROOT = Path("/sys/fs/cgroup")
PERIOD = 100_000


@pytest.fixture
def group():
    """A group below our own that may limit CPU time, and how its limit is written."""
    lines = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    mine = {name: path for _, names, path in lines for name in names.split(",")}
    first = (ROOT / "cpu").is_dir()
    parent = ROOT / "cpu" / mine.get("cpu", "/").lstrip("/") if first else ROOT / mine.get("", "/").lstrip("/")
    made = parent / f"tercio-quota-{os.getpid()}"
    try:
        made.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made: {error}")

    def limit(quota: int) -> None:
        name, text = ("cpu.cfs_quota_us", f"{quota}") if first else ("cpu.max", f"{quota} {PERIOD}")
        if not (made / name).exists():
            pytest.skip("CPU time can't be limited there")
        (made / name).write_text(text)

    try:
        yield made, limit
    finally:
        made.rmdir()


@pytest.mark.parametrize(("quota", "cpus"), [(20_000, 1), (100_000, 1), (110_000, 2), (100 * PERIOD, None)])
def test_a_quota_is_rounded_up(group, quota, cpus):
    """And is what a pool without a number takes; one that is larger than the machine changes nothing."""
    made, limit = group
    limit(quota)
    program = "import tercio; print(tercio.usable_cpu_count(), tercio.WorkerPool().pool_params.n_jobs)"
    enter = f'echo $$ > "{made}/cgroup.procs" && exec "$@"'
    done = subprocess.run(
        ["sh", "-c", enter, "sh", sys.executable, "-c", program], capture_output=True, text=True, timeout=55, check=True
    )
    expected = min(cpus or usable_cpu_count(), usable_cpu_count())
    assert done.stdout.split() == [str(expected)] * 2, done.stderr
