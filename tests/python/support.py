"""What the tests see of processes and descriptors."""

from __future__ import annotations

import os
from pathlib import Path


def as_usual() -> dict[str, str]:
    """The environment of a program whose warnings are its subject, so that they are what they are by default."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONWARNINGS"}


def descendants(pid: int) -> set[int]:
    """Processes that come from this one and still run."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
            except OSError:
                continue
            state, parent = stat.rpartition(")")[2].split()[:2]
            if state != "Z":
                parents[int(entry.name)] = int(parent)
    found = {pid}
    while True:
        more = {child for child, parent in parents.items() if parent in found} - found
        if not more:
            return found - {pid}
        found |= more


def descriptors() -> dict[str, str]:
    """What each open descriptor of this process leads to."""
    found = {}
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found[entry.name] = os.readlink(entry)
        except OSError:
            continue
    return found
