"""Write docs/contract-coverage.md from the last whole run of the Python tests."""

from __future__ import annotations

import json
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "python"))

from contract import LINES, METHODS, methods_of  # noqa: E402

TITLES = {
    "1": "Start methods",
    "2": "WorkerPool",
    "3": "The map family",
    "4": "The apply family",
    "5": "Exceptions",
    "6": "Progress bars",
    "7": "Insights",
    "8": "Utilities",
    "9": "Dashboard",
    "10": "Small print",
    "11": "Second round",
}


def cell(tests: dict[str, list[str]] | None) -> str:
    """One test's name, and how many more there are."""
    if not tests or not (tests["passed"] or tests["failed"]):
        return "**none**"
    if tests["failed"]:
        return f"**FAILED** `{tests['failed'][0].partition('::')[2]}`"
    first, *more = tests["passed"]
    return f"`{first.partition('::')[2]}`" + (f" +{len(more)}" if more else "")


def main() -> None:
    """Read build/contract.json, write the table."""
    cells = json.loads((ROOT / "build" / "contract.json").read_text())
    out = [
        "# What the tests hold",
        "",
        (
            "Each line is something users can rely on; each cell names a test that holds it with that method, and "
            "how many more do. Made by `python tools/contract_coverage.py` from the last run of `make test`."
        ),
    ]
    section = ""
    for name, _, text in LINES:
        number, _, short = name.partition(" ")
        if number != section:
            section = number
            out += ["", f"## {number}. {TITLES[number]}", "", f"| line | {' | '.join(METHODS)} |", "| --- |" * 5]
            out[-1] = "| --- | --- | --- | --- | --- |"
        row = [cell(cells.get(name, {}).get(method)) if method in methods_of(name) else "" for method in METHODS]
        if len(set(row)) == 1 and "none" not in row[0]:
            row = [row[0], "same", "same", "same"]
        out.append(f"| **{short}**: {text} | {' | '.join(row)} |")
    path = ROOT / "docs" / "contract-coverage.md"
    path.write_text("\n".join(out) + "\n")
    print(f"{path.relative_to(ROOT)}: {len(LINES)} lines")


if __name__ == "__main__":
    main()
