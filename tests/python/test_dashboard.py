"""The dashboard as a browser shows it."""

from __future__ import annotations

import re
import signal

import dashboards
import pytest
from dashboards import Program, counts, report, shows
from tercio import WorkerPool
from tercio.dashboard import _runs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

pytestmark = pytest.mark.timeout(180)
browser, page = dashboards.browser, dashboards.page
nothing_left_behind, port = dashboards.nothing_left_behind, dashboards.port


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver", "threading"])
@pytest.mark.contract("9 runs")
def test_a_run_is_shown_while_it_runs(page: Any, tmp_path: Path, method: str) -> None:
    """Its bar stands where the work stands, the lanes show who is busy, and all of it moves."""
    with Program(tmp_path, "gated", method) as program:
        shows(page, "#detail h3", "gated")
        shows(page, "#detail .big", "5 / 10")
        assert page.locator("#detail [role=progressbar]").get_attribute("aria-valuenow") == "50"
        counts(page, ".lane .chip.work", 2)
        shows(page, "#running .run", "gated")
        shows(page, "#detail .signature", "gated(value)")
        shows(page, "#detail .doc", "<b>markup</b>")
        shows(page, "#detail dl", f"{program.process.pid}")
        shows(page, "#detail dl", f"2 workers by {method}")
        shows(page, "#detail dl .signature", "pool.map(function")
        program.open(5)
        shows(page, "#detail .big", "10 / 10")
        page.locator("#detail.done").wait_for()
        shows(page, "#history .run.done", "gated")
        assert page.locator("#throughput path.curve").count() == 1
        tasks = page.locator(".lane").evaluate_all("lanes => lanes.map(l => parseInt(l.children[3].textContent))")
        assert sum(tasks) == 10
        shows(page, "#detail table", "Arg 0: 5")  # of those that waited longest
        assert program.wait() == ""


@pytest.mark.contract("9 failures")
def test_a_failure_is_shown_as_text(page: Any, tmp_path: Path) -> None:
    """The traceback, and nothing that it holds comes to life."""
    with Program(tmp_path, "fail") as program:
        shows(page, "#detail .trouble p", "ValueError")
        shows(page, "#detail .trouble p", "<img src=x")
        shows(page, "#detail .trouble pre", "in fail")
        counts(page, ".lane", 2)
        shows(page, "#detail table", "Arg 0: ")
        assert "_mapping.py" not in page.locator("#detail .trouble pre").inner_text()  # where we were helps nobody
        shows(page, "#history .run.failed", "fail")
        assert page.evaluate("window.harmed") is None
        assert page.locator("#detail img").count() == 0
        assert "ValueError" in program.wait()


@pytest.mark.contract("9 failures")
def test_a_death_is_shown_with_its_cause(page: Any, tmp_path: Path) -> None:
    """What killed the worker, and which task it ran."""
    with Program(tmp_path, "die") as program:
        shows(page, "#detail .trouble p", "was killed by SIGKILL")
        shows(page, "#detail .trouble p", "Arg 0: 5")
        assert page.locator("#detail .trouble pre").is_hidden()
        assert "WorkerDiedError" in program.wait()


@pytest.mark.contract("9 failures")
def test_an_interrupt_and_a_killed_program(page: Any, tmp_path: Path) -> None:
    """Ctrl-C says so itself; a program that is killed says nothing, and is seen to be gone."""
    for number, kind in ((signal.SIGINT, "interrupted"), (signal.SIGKILL, "lost")):
        folder = tmp_path / kind
        folder.mkdir()
        with Program(folder, "gated") as program:
            shows(page, "#running .run[aria-pressed=true]", "gated")
            shows(page, "#detail .big", "running")
            shows(page, "#detail .big", "5 / 10")
            program.process.send_signal(number)
            shows(page, "#detail .big", kind)
            shows(page, f"#history .run.{kind}", "gated")


@pytest.mark.contract("9 runs")
def test_nested_pools_in_spawned_workers_appear(page: Any, tmp_path: Path) -> None:
    """Workers of any method are connected as their parent is."""
    with Program(tmp_path, "nest", "spawn") as program:
        # map(nest, range(4)) makes four pools; the first one has nothing to do, and no bar.
        counts(page, "#history .run.done .name:text-is('inner')", 3)
        shows(page, "#history .run.done", "nest")
        assert program.wait() == ""


def test_keyboard_phone_and_dark(page: Any, port: int) -> None:
    """Arrows choose runs; a narrow screen needs no scrolling sideways; dark is dark."""
    with WorkerPool(2, start_method="threading") as pool:
        for function in (abs, str):
            pool.map(function, range(10), progress_bar=True, progress_bar_style="dashboard")
    shows(page, "#detail h3", "str")
    page.keyboard.press("ArrowDown")
    shows(page, "#detail h3", "abs")
    assert page.locator(".run[aria-pressed=true]").count() == 1
    page.keyboard.press("ArrowUp")
    shows(page, "#detail h3", "str")
    page.set_viewport_size({"width": 360, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.emulate_media(color_scheme="dark")
    red = page.evaluate("parseInt(getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0])")
    assert red < 64


@pytest.mark.contract("9 history")
def test_many_runs_stay_within_bounds(page: Any, port: int) -> None:
    """Several hundred runs, one with a hundred workers: the page keeps what the server keeps."""
    lane = {"state": "work", "pid": 1, "tasks": 3, "restarts": 0, "wait": 1.0, "work": 2.0}
    for number in range(_runs.MOST_RUNS + 20):
        start = {"start": {"total": 10, "function": {"name": f"crowd{number}"}}}
        workers = [{**lane, "worker": n} for n in range(100)] if number > _runs.MOST_RUNS else []
        assert report(port, start, {"done": 10, "workers": workers, "end": {"state": "done"}}) == 204
    last = f"crowd{_runs.MOST_RUNS + 19}"
    shows(page, "#detail h3", last)
    counts(page, ".lane", 100)
    counts(page, ".run", _runs.MOST_RUNS)
    assert page.locator(".run", has_text=re.compile(r"crowd0\b")).count() == 0


def test_what_retried_workers_died_of(page: Any, port: int) -> None:
    """A call that goes on after deaths tells of them all the same."""
    lane = {"state": "work", "pid": 1, "tasks": 3, "restarts": 2, "wait": 1.0, "work": 2.0}
    lanes = [{**lane, "worker": 0, "died": "SIGKILL"}, {**lane, "worker": 1, "restarts": 0, "died": None}]
    start = {"start": {"total": 10, "function": {"name": "hardy"}}}
    assert report(port, start, {"done": 10, "workers": lanes, "end": {"state": "done"}}) == 204
    shows(page, "#detail h3", "hardy")
    page.get_by_text("2 restarted · died by SIGKILL").wait_for()


HARM = "<img src=x onerror='window.harmed = true'><script>window.harmed = true</script>"


def test_nothing_that_is_reported_comes_to_life(page: Any, port: int) -> None:
    """Markup in names, arguments, documentation, paths and tracebacks is shown as it is."""
    function = {"name": f"harm{HARM}", "signature": HARM, "doc": HARM, "file": HARM, "line": 1}
    start = {
        "call": HARM, "user": HARM, "program": HARM, "start_method": HARM, "function": function,
        "caller": {"function": HARM, "file": HARM, "text": HARM, "line": 1},
    }  # fmt: skip
    workers = [{"state": HARM, "worker": 0, "longest": [[1.5, 0, HARM]]}]
    end = {"state": "failed", "error": HARM, "traceback": HARM}
    assert report(port, {"start": start}, {"done": 1, "workers": workers, "end": end}) == 204
    shows(page, "#detail h3", f"harm{HARM}")
    shows(page, "#detail table", HARM)
    assert page.locator("#detail dl dd", has_text=HARM).count() == 6
    for place in (".signature", ".doc", ".trouble p", ".trouble pre"):
        shows(page, f"#detail {place}", HARM)
    assert page.locator("main img, main script").count() == 0
    # Nor does a script that got in another way: the policy knows no inline scripts.
    page.evaluate("document.body.append(Object.assign(document.createElement('script'), {text: 'window.harmed = 1'}))")
    page.evaluate("document.body.insertAdjacentHTML('beforeend', `<i onclick='window.harmed = 1'>x</i>`)")
    page.locator("body > i").click()
    assert page.evaluate("window.harmed") is None
