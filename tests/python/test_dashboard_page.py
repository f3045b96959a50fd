"""What the dashboard's page costs, and that it keeps up."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import dashboards
import pytest
from dashboards import Live, counts, shows, until

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

pytestmark = pytest.mark.timeout(180)
browser, page = dashboards.browser, dashboards.page
nothing_left_behind, port = dashboards.nothing_left_behind, dashboards.port


# What the page is told of one run, N runs and a hundred workers, over and over; returns nothing.
FEED = """([rounds, first, lanes]) => {
    for (let round = 0; round < rounds; round += 1) {
        const workers = Array.from({length: lanes}, (_, n) => ({
            worker: n, pid: n + 1, state: ["work", "wait"][(round + n) % 2], tasks: round, restarts: 0,
            start: 1, init: 0, wait: round, work: 2 * round, exit: 0}));
        const points = Array.from({length: 200}, (_, n) => [n * (round + 1), n * (round + n)]);
        take({time: Date.now() / 1000, gone: [], runs: [
            {id: first, done: round, rate: round, workers, points, slowest: [[round, `Arg 0: ${round}`]]}]});
        draw();
    }
}"""
TOLD = """([first, number]) => {
    const other = {file: "", line: null, signature: "()", doc: "", function: "", text: ""};
    const runs = Array.from({length: number}, (_, n) => ({
        id: first + n, name: `told${n}`, state: "running", done: 0, total: 1e6, rate: null, begun: 0, ended: null}));
    pinned = true;
    take({time: Date.now() / 1000, gone: [], runs});
    choose(first, true);
    take({time: Date.now() / 1000, gone: [], runs: [{id: first, function: other, caller: other, workers: [],
        points: [[0, 0]], slowest: [], error: "", traceback: "", user: "me", pid: 1, program: "", call: "map",
        n_jobs: 100, start_method: "fork"}]});
}"""


def tell(page: Any, first: int) -> None:
    """Tell a page that the server knows of three hundred runs, and of one in detail."""
    until(page, "page !== '' && question === null")
    page.evaluate(TOLD, [first, 300])


def test_a_page_left_open_does_not_grow(page: Any) -> None:
    """A quarter of an hour of news and an hour of it leave as many nodes and listeners, and no more memory."""
    tell(page, 10_000)
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable")

    def grown(rounds: int) -> dict[str, float]:
        page.evaluate(FEED, [rounds, 10_000, 20])
        least: dict[str, float] = {}
        for _ in range(3):  # a collection leaves what the next one finds
            session.send("HeapProfiler.collectGarbage")
            for each in session.send("Performance.getMetrics")["metrics"]:
                least[each["name"]] = min(each["value"], least.get(each["name"], each["value"]))
        return least

    early = grown(200)
    late = grown(2000)
    for name, room in (("Nodes", 500), ("JSEventListeners", 5), ("JSHeapUsedSize", 2 << 20)):
        assert late[name] <= early[name] + room, (name, early[name], late[name])


def test_news_of_one_run_touches_no_other(page: Any) -> None:
    """With three hundred runs in the list and a hundred workers on show, a message costs what it changes."""
    tell(page, 20_000)
    counts(page, ".run", page.evaluate("runs.size"))
    page.evaluate(FEED, [1, 20_000, 100])
    page.locator("[data-run='20007']").scroll_into_view_if_needed()
    until(page, "near.has(rows.get(20007))")
    changed = page.evaluate(
        """() => {
            draw();
            const watch = new MutationObserver(() => {});
            const all = {subtree: true, childList: true, attributes: true, characterData: true};
            watch.observe(document.body, all);
            const runsOf = () => [...new Set(watch.takeRecords().map(r => {
                const node = r.target.nodeType === 1 ? r.target : r.target.parentNode;
                return node?.closest(".run")?.dataset.run ?? node.outerHTML.slice(0, 60); }))];
            const news = () => ({time: Date.now() / 1000, gone: [], runs: [{id: 20007, done: 5000, rate: 3}]});
            const told = () => { take(news()); draw(); return runsOf(); };
            return [told(), told()];
        }"""
    )
    assert changed == [["20007"], []]


# How many rows and lanes a message changes that changes every run and every worker.
DRAWN = """([first, number]) => {
    draw();
    const watch = new MutationObserver(() => {});
    watch.observe(document.body, {subtree: true, childList: true, attributes: true, characterData: true});
    const workers = Array.from({length: 100}, (_, n) => ({worker: n, pid: n + 1, state: "exit", tasks: 77, restarts: 5,
        start: 1, init: 0, wait: 1, work: 7, exit: 0}));
    const runs = Array.from({length: number}, (_, n) => ({id: first + n, done: 777, rate: 7}));
    runs[0].workers = workers;
    take({time: Date.now() / 1000, gone: [], runs});
    draw();
    const nodes = watch.takeRecords().map(r => r.target.nodeType === 1 ? r.target : r.target.parentNode);
    return [".run", ".lane"].map(kind => new Set(nodes.map(node => node.closest(kind)).filter(Boolean)).size);
}"""


def test_what_cannot_be_seen_is_not_drawn(page: Any) -> None:
    """News of three hundred runs and a hundred workers cost what is in sight; the rest is drawn when it gets there."""
    tell(page, 30_000)
    page.evaluate(FEED, [1, 30_000, 100])
    counts(page, ".lane", 100)
    until(page, "near.size > 3 && near.has(rows.get(30299)) && near.has(detail.ofWorkers[0])")
    drawn_rows, drawn_lanes = page.evaluate(DRAWN, [30_000, 300])
    assert 3 <= drawn_rows <= 60
    assert 3 <= drawn_lanes <= 60
    for far in ("[data-run='30000']", ".lane:last-child"):
        assert "77" not in page.locator(far).inner_text()
        page.locator(far).scroll_into_view_if_needed()
        shows(page, far, "77")


def test_arrow_held_down_ends_at_the_run_that_it_shows(page: Any, port: int) -> None:
    """Questions to the server are held up here: the one that counts still arrives last."""
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(Live(port, f"held{n}")) for n in range(6)]
        shows(page, "#detail h3", "held5")
        shows(page, ".run[aria-pressed=true]", "held5")
        until(page, "asked === chosen && question === null")
        waiting: list[Any] = []
        free = threading.Event()
        page.route("**/api/watch", lambda route: route.continue_() if free.is_set() else waiting.append(route))
        for _ in range(5):
            page.keyboard.press("ArrowDown")
        shows(page, ".run[aria-pressed=true]", "held0")
        while not waiting:  # the question is under way to us: this hears of it
            page.evaluate("new Promise(requestAnimationFrame)")
        free.set()  # what is asked behind it goes through
        for route in reversed(waiting):  # the latest first, if there are several
            with page.expect_response("**/api/watch"):
                route.continue_()
        shows(page, "#detail h3", "held0")
        for tasks in (41, 42):
            held[0].send(workers=[{"worker": 0, "state": "work", "tasks": tasks, "work": 1.0}])
            shows(page, ".lane", f"{tasks}")


# Notes the longest time between two frames, and how often there is news.
WATCH = """() => {
    Object.assign(window, {told: 0, gap: 0});
    const plain = take;
    take = news => { told += 1; plain(news); };
    let last = performance.now();
    const look = () => {
        const now = performance.now();
        gap = Math.max(gap, now - last);
        last = now;
        requestAnimationFrame(look);
    };
    look();
}"""
STALL = 10  # seconds: dozens of times what a machine takes that has nothing else to do


def test_three_hundred_live_runs(page: Any, port: int) -> None:
    """A hundred workers each, all told of as fast as the server reads: the page answers to keys all the while."""
    with contextlib.ExitStack() as stack:
        live = [stack.enter_context(Live(port, f"live{n}")) for n in range(300)]
        counts(page, "#running .run", 300)
        over = threading.Event()

        def feed() -> None:
            for turn in itertools.count(1):
                states = [("work", "wait")[(turn + n) % 2] for n in range(100)]
                workers = [{"worker": n, "state": state, "tasks": turn, "work": 1.0} for n, state in enumerate(states)]
                message = Live.encode(done=turn, workers=workers)
                for each in live:
                    if over.is_set():
                        return
                    each.raw(message)

        with ThreadPoolExecutor(1) as thread:
            fed = thread.submit(feed)
            try:
                counts(page, ".lane", 100)
                page.evaluate(WATCH)
                for step in range(1, 6):
                    pressed = time.monotonic()
                    page.keyboard.press("j")
                    shows(page, ".run[aria-pressed=true]", f"live{299 - step}")
                    shows(page, "#detail h3", f"live{299 - step}")
                    counts(page, ".lane", 100)
                    assert time.monotonic() - pressed < STALL
                before = page.evaluate("told")
                until(page, f"told >= {before + 3}")
                assert page.evaluate("gap") < STALL * 1000
                assert page.locator("body *").count() < 300 * 16 + 100 * 16 + 300
            finally:
                over.set()
            fed.result()
