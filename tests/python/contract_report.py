"""Which tests hold which line of the contract: the table at the end of a run. A plugin of conftest's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from contract import LINES, METHODS, NAMES, methods_of

RESULT = Path(__file__).parents[2] / "build" / "contract.json"


class Report:
    """Collects, for each line and start method, the tests that passed and failed."""

    def __init__(self) -> None:
        self.cells: dict[str, dict[str, dict[str, list[str]]]] = {}
        self.places: dict[str, list[tuple[str, str]]] = {}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            names = [name for mark in item.iter_markers("contract") for name in mark.args]
            unknown = set(names) - set(NAMES)
            if unknown:
                raise pytest.UsageError(f"{item.nodeid}: no such line of the contract: {', '.join(sorted(unknown))}")
            given = getattr(getattr(item, "callspec", None), "params", {})
            methods = {given[key] for key in ("start_method", "process_method", "method") if given.get(key) in METHODS}
            places = [(name, method) for name in names for method in methods_of(name) if method in (methods or METHODS)]
            if places:
                self.places[item.nodeid] = places

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call" and not report.failed:
            return
        test = report.nodeid.partition("[")[0].rpartition("/")[2]
        for name, method in self.places.get(report.nodeid, ()):
            cell = self.cells.setdefault(name, {}).setdefault(method, {"passed": [], "failed": []})
            if not report.skipped and test not in cell[report.outcome]:
                cell[report.outcome].append(test)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self.cells:
            return
        terminalreporter.section("contract: tests that hold a line, by start method")
        terminalreporter.write_line(f"{'':28}{'fork':>12}{'spawn':>12}{'forkserver':>12}{'threading':>12}")
        for name, _, _ in LINES:
            if name in self.cells or len(self.cells) > len(LINES) // 2:
                cells = "".join(f"{self.shown(name, method):>12}" for method in METHODS)
                terminalreporter.write_line(f"{name:28}{cells}")

    def shown(self, name: str, method: str) -> str:
        if method not in methods_of(name):
            return "-"
        cell = self.cells.get(name, {}).get(method, {"passed": [], "failed": []})
        return f"FAILED {len(cell['failed'])}" if cell["failed"] else str(len(cell["passed"]) or "none")

    def pytest_sessionfinish(self) -> None:
        # Of whole runs alone: a run of one file says nothing about the rest.
        if len(self.cells) > len(LINES) // 2 and RESULT.parent.is_dir():
            RESULT.write_text(json.dumps(self.cells, indent=1))
