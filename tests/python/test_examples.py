"""The examples run as they are, bounded, and say nothing on standard error."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "python"


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver", "threading"])
def test_stdlib_report(method: str, tmp_path: Path) -> None:
    """A small part of the main example under one method: same counts as in the plain loop, nothing left running."""
    done = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / "stdlib_report.py"), "--files", "40", "--jobs", "2", method],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    assert f"\n{method} " in done.stdout
    assert "40 files" in done.stdout
