"""A user's program under ``mypy --strict``: what goes in decides what comes out."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tercio.async_result import AsyncResult

PROGRAM = """
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from tercio import WorkerPool, cpu_count
from tercio.async_result import AsyncResult
from tercio.exception import WorkerDiedError
from tercio.utils import chunk_tasks, format_seconds, make_single_arguments


def length(text: str) -> int:
    return len(text)


def rows(part: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return part * 2


def note(result: int) -> None:
    print(result)


def wrong(result: str) -> None:
    print(result)


class Totals:
    def __init__(self, pool: WorkerPool) -> None:
        self.pool = pool

    def lengths(self, words: list[str]) -> Iterator[int]:
        yield from self.pool.imap(length, words, chunk_size=2, progress_bar=True, progress_bar_options={"desc": "x"})


async def waits(pool: WorkerPool) -> None:
    reveal_type(await pool.apply_async(length, ("x",)))  # int


with WorkerPool(n_jobs=cpu_count(), start_method="spawn", cpu_ids=[0, [1, 2]], shared_objects={"a": 1}) as pool:
    reveal_type(pool)  # tercio.pool.WorkerPool
    reveal_type(pool.map(length, ["a", "b"]))  # list[int]
    reveal_type(pool.map_unordered(length, ["a", "b"], task_timeout=1))  # list[int]
    reveal_type(pool.imap(length, make_single_arguments(["a"])))  # Generator[int, None, None]
    reveal_type(pool.imap_unordered(str.upper, ["a"]))  # Generator[str, None, None]
    reveal_type(pool.map(lambda x: x + 0.5, [1, 2]))  # Any
    reveal_type(pool.map(rows, np.zeros(3)))  # ndarray
    reveal_type(pool.map(rows, np.zeros(3), concatenate_numpy_output=False))  # list[ndarray
    reveal_type(pool.apply(length, "x"))  # int
    reveal_type(pool.apply_async(length, "x", callback=note))  # AsyncResult[int]
    later: AsyncResult[int] = pool.apply_async(length, ("x",), on_worker_death="retry", max_retries=1)
    reveal_type(later.get(timeout=1.5))  # int
    reveal_type(pool.stats())  # list[dict[str, Any]]
    reveal_type(pool.get_insights())  # dict[str, Any]
    reveal_type(pool.get_exit_results())  # list[Any]
    reveal_type(format_seconds(3))  # str
    pool.map(length)  # error: [call-overload]
    pool.imap(3, [1])  # error: [arg-type]
    pool.apply_async(length, "x", callback=wrong)  # error: [misc]
    number: str = pool.apply(length, "x")  # error: [assignment]
    pool.map(length, ["a"], chunk_sise=3)  # error: [call-overload]
"""


def test_a_users_program(tmp_path: Path) -> None:
    pytest.importorskip("mypy", reason="mypy is not installed: make check installs it")
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--cache-dir", "cache", "program.py"],
        capture_output=True,
        text=True,
        timeout=58,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "MYPYPATH": ""},
    )
    said: dict[int, list[str]] = {}
    for line in done.stdout.splitlines():
        found = re.match(r"[^:]*program\.py:(\d+): (.*)", line)
        assert found, done.stdout + done.stderr
        said.setdefault(int(found[1]), []).append(found[2])
    for number, line in enumerate(PROGRAM.splitlines(), 1):
        code, _, wanted = line.partition("  # ")
        told = " ".join(said.pop(number, []))
        if "reveal_type" in code:
            kind = re.search(r'Revealed type is "(.*)"', told)
            assert kind and "error" not in told, (line, told)
            short = re.sub(r"\b(?:builtins|typing|collections\.abc|numpy|tercio\._core)\.(?=[A-Za-z])", "", kind[1])
            assert short.startswith(wanted), (line, told)
        elif wanted:
            assert "error: " in told and wanted.split()[-1] in told, (line, told)
        else:
            assert not told or told.startswith("note"), (line, told)


def test_subscript_at_run_time() -> None:
    assert "AsyncResult[int]" in str(AsyncResult[int])
