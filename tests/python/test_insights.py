"""Contract section 7: what the workers did with their time."""

from __future__ import annotations

import re
import time

import pytest
import tasks
from tercio import WorkerPool
from tercio.insights import get_insights, insights_string

KINDS = ("start_up", "init", "waiting", "working", "exit")


def seconds(text: str) -> float:
    """What format_seconds made of a duration, read back."""
    found = re.fullmatch(r"(?:(\d+) days?, )?(\d+):(\d\d):(\d\d)(?:\.(\d\d\d))?", text)
    assert found, text
    days, hours, minutes, whole, thousandths = (int(part or 0) for part in found.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + whole + thousandths / 1000


def nap() -> None:
    time.sleep(0.1)


@pytest.mark.contract("7 off")
def test_off(start_method, capsys):
    with WorkerPool(1, start_method=start_method) as pool:
        pool.map(tasks.identity, range(3))
        assert pool.get_insights() == {}
        assert "longest" not in pool.stats()[0]
        pool.print_insights()
    assert "enable_insights=True" in capsys.readouterr().out


@pytest.mark.contract("7 figures", "7 stats")
def test_each_figure(start_method):
    """Sums can't be less than what was slept; how much more is the machine's load, bounded by the wall clock alone."""
    with WorkerPool(2, start_method=start_method, enable_insights=True) as pool:
        began = time.monotonic()
        items = [(i, 0.02 * (i % 4)) for i in range(16)]  # 0.48 s of work
        assert pool.map(tasks.slowly, items, chunk_size=1, worker_init=nap, worker_exit=nap) == list(range(16))
        wall = time.monotonic() - began
        insights = pool.get_insights()
        stats = pool.stats()
    n_worked = sum(count > 0 for count in insights["n_completed_tasks"])
    assert n_worked == 2  # each gets its first chunk before any gets ahead
    assert sum(insights["n_completed_tasks"]) == 16
    for kind in KINDS:
        each = insights[f"{kind}_time"]
        assert len(each) == 2
        total = sum(map(seconds, each))
        assert total - 0.002 <= seconds(insights[f"total_{kind}_time"]) <= total + 0.002
        assert abs(seconds(insights[f"{kind}_time_mean"]) - total / 2) <= 0.002
        assert seconds(insights[f"{kind}_time_std"]) <= total
        assert all(seconds(text) <= wall + 0.01 for text in each)
        assert insights[f"{kind}_ratio"] == pytest.approx(total / seconds(insights["total_time"]), abs=0.01)
    # A clock and a sleep may differ by a tick each.
    assert seconds(insights["total_working_time"]) >= 0.47
    assert all(seconds(text) >= 0.099 for text in insights["init_time"] + insights["exit_time"])
    assert sum(insights[f"{kind}_ratio"] for kind in KINDS) == pytest.approx(1, abs=0.001)
    assert seconds(insights["total_time"]) <= 2 * wall + 0.02
    durations = [seconds(text) for text in insights["top_5_max_task_durations"]]
    assert len(durations) == 5 and durations == sorted(durations, reverse=True)
    assert all(duration >= 0.039 for duration in durations)  # four of 0.06 and one of 0.04, or what stalled longer
    assert all(re.fullmatch(r"Arg 0: \d+ \| Arg 1: 0\.0\d?", text) for text in insights["top_5_max_task_args"])
    assert {f"Arg 0: {i} | Arg 1: 0.06" for i in (3, 7, 11, 15)} & set(insights["top_5_max_task_args"])
    assert all(set(worker) >= {"pid", "state", "tasks", "restarts", "longest"} for worker in stats)
    assert sum(worker["tasks"] for worker in stats) == 16


@pytest.mark.contract("7 longest")
def test_arguments_of_the_longest(start_method):
    items = [(1, 0.02), {"seconds": 0.02, "value": "ü" * 300}, (tasks.identity, 0.02)]
    with WorkerPool(1, start_method=start_method, enable_insights=True) as pool:
        pool.map(tasks.slowly, items)
        # How long each took is the machine's affair; which text goes with which is not.
        by_place, function, by_name = sorted(pool.get_insights()["top_5_max_task_args"])
    assert by_name.startswith("Arg seconds: 0.02 | Arg value: 'üüü") and len(by_name) < 256
    assert by_place == "Arg 0: 1 | Arg 1: 0.02"
    assert function.startswith("Arg 0: <function identity at")


class Shy:
    """Nobody can look at it."""

    def __repr__(self):
        raise LookupError("no")


@pytest.mark.contract("7 longest")
def test_arguments_that_cannot_be_shown(start_method):
    with WorkerPool(1, start_method=start_method, enable_insights=True) as pool:
        assert len(pool.map(tasks.slowly, [(Shy(), 0.01)])) == 1
        (text,) = pool.get_insights()["top_5_max_task_args"]
    assert text.startswith("Arg 0: <Shy ") and text.endswith(" | Arg 1: 0.01")


def test_a_failed_call_keeps_its_insights(start_method):
    """What its workers did is of most interest then."""
    with WorkerPool(1, start_method=start_method, enable_insights=True) as pool:
        with pytest.raises(ValueError):
            pool.map(tasks.fail_at, [(n, 11) for n in range(20)], chunk_size=1)
        assert sum(pool.get_insights()["n_completed_tasks"]) >= 11
        assert sum(worker["tasks"] for worker in pool.stats()) >= 11
    assert sum(pool.get_insights()["n_completed_tasks"]) >= 11


@pytest.mark.contract("10 exit results", "7 kept")
def test_accumulate_while_kept(start_method):
    with WorkerPool(2, start_method=start_method, keep_alive=True, enable_insights=True) as pool:
        pool.map(tasks.slowly, [(i, 0.05) for i in range(4)], chunk_size=1)
        first = pool.get_insights()
        assert sum(first["n_completed_tasks"]) == 4
        pool.map(tasks.identity, range(6), worker_exit=None)
        second = pool.get_insights()
        assert sum(second["n_completed_tasks"]) == 10
        assert seconds(second["total_working_time"]) >= seconds(first["total_working_time"]) >= 0.19
        assert set(second["top_5_max_task_args"]) >= set(first["top_5_max_task_args"])
        pool.stop_and_join()
        assert sum(pool.get_insights()["n_completed_tasks"]) == 10
        pool.map(tasks.identity, range(3))
        assert sum(pool.get_insights()["n_completed_tasks"]) == 3  # new workers, from the beginning


@pytest.mark.contract("7 kept", "3 lifespan")
def test_replaced_workers_count(start_method):
    """Lifespans: what a worker did and took longest for stays when another takes its place."""
    items = [(i, 0.5 * (i == 2)) for i in range(6)]
    with WorkerPool(1, start_method=start_method, enable_insights=True) as pool:
        pool.map(tasks.slowly, items, chunk_size=1, worker_lifespan=1, worker_exit=nap)
        insights, (stats,) = pool.get_insights(), pool.stats()
    assert insights["n_completed_tasks"] == [6] and stats["restarts"] >= 5
    assert seconds(insights["total_exit_time"]) >= 6 * 0.099
    assert insights["top_5_max_task_args"][0] == "Arg 0: 2 | Arg 1: 0.5"
    assert len(insights["top_5_max_task_args"]) == 5


@pytest.mark.contract("7 lazy")
def test_readable_while_a_lazy_map_runs(start_method):
    with WorkerPool(1, start_method=start_method, enable_insights=True) as pool:
        results = pool.imap(tasks.identity, range(50), chunk_size=1)
        assert next(results) == 0
        assert 1 <= sum(pool.get_insights()["n_completed_tasks"]) <= 50
        assert list(results) == list(range(1, 50))
        assert sum(pool.get_insights()["n_completed_tasks"]) == 50


@pytest.mark.contract("7 figures")
def test_apply_counts(start_method):
    with WorkerPool(1, start_method=start_method, enable_insights=True) as pool:
        assert pool.apply(tasks.slowly, (7,), {"seconds": 0.05}) == 7
        insights = pool.get_insights()
        assert insights["n_completed_tasks"] == [1]
        assert insights["top_5_max_task_args"] == ["Arg 0: 7 | Arg seconds: 0.05"]


def worker(**figures):
    """What a worker's counters may tell."""
    return {"tasks": 2, "start": 0.5, "init": 0.0, "wait": 0.25, "work": 9.0, "exit": 0.25, **figures}


@pytest.mark.contract("7 text")
def test_numbers():
    """Contract: durations with days where there are, ratios are fractions of the total time."""
    two_days = 2 * 86400 + 0.5
    insights = get_insights([worker(), worker(tasks=3, work=two_days, longest=[(two_days, 4, "Arg 0: 'x'")])])
    assert insights["n_completed_tasks"] == [2, 3]
    assert insights["working_time"] == ["0:00:09", "2 days, 0:00:00.500"]
    assert insights["start_up_time"] == ["0:00:00.500"] * 2 and insights["init_time"] == ["0:00:00"] * 2
    assert insights["total_start_up_time"] == "0:00:01" and insights["start_up_time_std"] == "0:00:00"
    assert insights["waiting_time_mean"] == "0:00:00.250"
    assert insights["total_time"] == "2 days, 0:00:11.500"
    assert insights["working_ratio"] == pytest.approx((two_days + 9) / (two_days + 11))
    assert insights["top_5_max_task_durations"] == ["2 days, 0:00:00.500"]
    assert insights["top_5_max_task_args"] == ["Arg 0: 'x'"]
    assert get_insights([]) == {}


@pytest.mark.contract("7 text")
def test_text():
    busy, idle = get_insights([worker()]), get_insights([worker(work=1.0)])
    text = insights_string(busy)
    assert "Total working time: 0:00:09 (mean: 0:00:09, std: 0:00:00, ratio: 90.00%)" in text
    assert "fficiency" not in text and "longest" not in text
    assert "fficiency" in insights_string(idle)
    assert "1. 0:00:03: Arg 0: 1" in insights_string(get_insights([worker(longest=[(3.0, 0, "Arg 0: 1")])]))
