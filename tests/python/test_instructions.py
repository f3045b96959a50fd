"""The guard over instruction counts can fail."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

TOOL = Path(__file__).resolve().parents[2] / "tools" / "instructions.py"


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("instructions", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_more_than_a_tenth_is_too_much(tool):
    before = {"ring": 100.0, "bell": 50.0}
    assert tool.compare({"ring": 110.0, "bell": 40.0}, before) == []
    (line,) = tool.compare({"ring": 111.0, "bell": 50.0}, before)
    assert line.startswith("ring: 111 instructions, +11%")


def test_what_is_missing_or_new_is_said(tool):
    lines = tool.compare({"new": 1.0}, {"old": 1.0})
    assert [line.split(":")[0] for line in lines] == ["old", "new"]


def test_the_marks_of_callgrind_are_read(tool, tmp_path):
    text = "version: 1\ndesc: Trigger: Client Request: {}\nevents: Ir\nsummary: {}\n"
    (tmp_path / "out.1").write_text(text.format("-", 5))
    (tmp_path / "out.2").write_text(text.format("a/b: c/10", 1000))
    (tmp_path / "out.10").write_text(text.format("a/b: c/10", 900))
    (tmp_path / "out").write_text("desc: Trigger: Program termination\nsummary: 7\n")
    assert tool.parts(tmp_path) == {"a/b: c": [100.0, 90.0]}


def test_there_is_a_baseline(tool):
    import json

    baselines = json.loads(tool.BASELINE.read_text())
    assert all(value > 0 for counts in baselines.values() for value in counts.values())
