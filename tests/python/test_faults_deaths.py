"""Workers that end in every way there is, under every kind of call; and the parent that does."""

from __future__ import annotations

import os
import pickle
import random
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import faults
import pytest
import tasks
from support import descendants
from tercio import WorkerPool, _descriptors, _postmortem
from tercio.exception import WorkerDiedError

HERE = Path(__file__).parent
# glibc and the kernel know no other cause of an end than these.
CAUSES = {"stopped": "SIGKILL", "abort": "SIGABRT", "null": "SIGSEGV"}


def expected(how):
    if how.startswith("exit"):
        return None, int(how[5:])
    return signal.Signals[CAUSES.get(how, how)], None


def tasks_with_ends(n, folder):
    """n tasks of which every third ends its worker the first time, each in another way."""
    ends = [faults.ENDS[i // 3 % len(faults.ENDS)] if i % 3 == 1 else "" for i in range(n)]
    return [(i, str(folder), how) for i, how in enumerate(ends)]


# ---- The error -------------------------------------------------------------------------------------------------


def test_every_end_is_told_by_name(process_method):
    with WorkerPool(2, start_method=process_method) as pool:
        results = [pool.apply_async(faults.end_at, (how, how, how)) for how in faults.ENDS]
        others = [pool.apply_async(faults.identity, (i,)) for i in range(10)]
        for how, result in zip(faults.ENDS, results):
            with pytest.raises(WorkerDiedError) as caught:
                result.get(50)
            error = caught.value
            assert (error.signal, error.exit_code) == expected(how), how
            assert error.worker_id in (0, 1)
            assert error.pid > 0
            assert error.args_repr.splitlines() == [f"Arg {i}: {how!r}" for i in range(3)]
            assert "end_at" in str(error)
            assert (error.signal.name if error.signal else f"exit code {error.exit_code}") in str(error)
            assert error.peak_rss > 1 << 20
            assert error.out_of_memory in (False, None)
            copy = pickle.loads(pickle.dumps(error))
            assert (copy.args, copy.__dict__) == (error.args, error.__dict__)
        assert [other.get(50) for other in others] == list(range(10))


def test_the_stack_of_a_crash(process_method):
    with WorkerPool(2, start_method=process_method) as pool:
        for how in ("null", "abort", "SIGFPE"):
            with pytest.raises(WorkerDiedError) as caught:
                pool.map(faults.deep, [(3, how)])
            stack = caught.value.stack
            assert re.search(r"(?s)in end\n.*in deep\n.*in deep\n", stack), stack
            assert stack in str(caught.value)
        with pytest.raises(WorkerDiedError) as caught:  # the file remembers none of another death
            pool.map(faults.deep, [(3, "SIGKILL")])
        assert caught.value.stack == ""


def test_stacks_that_nobody_reads_are_bounded(monkeypatch):
    monkeypatch.setattr(_postmortem, "MOST_HELD", 0)
    with WorkerPool(1, keep_alive=True) as pool:
        for _ in range(3):
            with pytest.raises(WorkerDiedError):  # its stack may be read before the next worker drops it, or not
                pool.map(faults.deep, [(3, "abort")])
        assert pool.map(abs, [-1]) == [1]  # by a worker that found too much there when it started
        handed = _descriptors.Handed()
        _postmortem.hand(handed)
        assert os.fstat(handed.fds[0]).st_blocks == 0
    assert _postmortem.stack(os.getpid()) == ""


@pytest.mark.parametrize(
    ("before", "after", "verdicts"),
    [
        ((0, True), (0, True), [False, False]),
        ((4, True), (5, True), [True, None]),  # two died and the kernel killed one: which?
        ((4, True), (6, True), [True, True]),
        ((0, False), (0, False), [False, False]),
        ((0, False), (1, False), [None, None]),  # somewhere on the machine
        (None, None, [None, None]),
        ((0, True), None, [None, None]),
    ],
)
def test_out_of_memory_is_the_kernels_word(monkeypatch, before, after, verdicts):
    counts = iter([before, after, after])
    monkeypatch.setattr(_postmortem, "_oom_kills", lambda: next(counts))
    monkeypatch.setattr(_postmortem, "_file", _postmortem._File())
    monkeypatch.setattr(_postmortem, "_users", {})
    user = _postmortem._File()
    user.core = None
    _postmortem.acquire(user)
    try:
        told = [_postmortem.out_of_memory(signal.SIGKILL, None) for _ in verdicts]
        assert [verdict for verdict, _ in told] == verdicts
        doubt = "the kernel counted 1 kill for memory while 2 workers were killed"
        assert [text for _, text in told if text] == ([doubt] if verdicts == [True, None] else [])
        assert _postmortem.out_of_memory(signal.SIGSEGV, None)[0] is False
        assert _postmortem.out_of_memory(None, 3)[0] is False
        assert _postmortem.out_of_memory(None, None)[0] is None
    finally:
        _postmortem.release(user)


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize(("kills", "verdict"), [(0, False), (1, None), (2, True)])
def test_two_die_at_once_and_the_kernel_killed_fewer(monkeypatch, process_method, kills, verdict):
    """Which of them it was isn't invented, also for the one that is asked about first."""
    count, pids = 0, []

    def both_are_dead():
        while any(is_running(pid) for pid in pids):
            pass
        return count, True

    monkeypatch.setattr(_postmortem, "_oom_kills", both_are_dead)
    with WorkerPool(2, start_method=process_method, keep_alive=True) as pool:
        pool.map(abs, [-1, -2])  # what was before doesn't count
        with pytest.raises(WorkerDiedError) as before:
            pool.apply(faults.end, ("SIGKILL",))
        assert before.value.out_of_memory is False
        while len(set(pool.map(tasks.where_am_i, range(8), chunk_size=1))) < 2:
            pass  # the one that was killed has been replaced
        pids = [worker["pid"] for worker in pool.stats()]
        results = [pool.apply_async(faults.end, ("SIGKILL",)) for _ in range(2)]
        count = kills
        for result in results:
            with pytest.raises(WorkerDiedError) as caught:
                result.get()
            assert caught.value.out_of_memory is verdict
            doubt = (
                "was killed by SIGKILL (perhaps because memory ran out: the kernel counted 1 kill for memory while 2 "
            )
            assert (doubt in str(caught.value)) is (kills == 1)


def test_a_pool_that_ends_while_a_death_is_judged(monkeypatch):
    """As a signal's handler may end it, or the collector: who judges holds a lock that its end needs."""
    told = []
    with WorkerPool(1, keep_alive=True) as pool:
        pool.map(abs, [-1])
        monkeypatch.setattr(_postmortem, "_oom_kills", lambda: pool.terminate() or (0, True))
        judge = threading.Thread(target=lambda: told.append(_postmortem.out_of_memory(9, None)), daemon=True)
        judge.start()
        judge.join(20)
        assert told


# ---- Retries -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [{"chunk_size": 1}, {"chunk_size": 4}, {"chunk_size": 1, "worker_lifespan": 1}])
def test_map_goes_on_after_every_end(process_method, tmp_path, how):
    todo = tasks_with_ends(31, tmp_path)
    with WorkerPool(2, start_method=process_method, keep_alive=True) as pool:
        found = pool.map(faults.end_once, todo, on_worker_death="retry", **how)
        assert found == [(value, end) for value, _, end in todo]
        assert len(list(tmp_path.iterdir())) == sum(1 for _, _, end in todo if end)
        assert pool.map(tasks.double, range(50)) == [2 * i for i in range(50)]


@pytest.mark.parametrize("name", ["imap", "imap_unordered", "map_unordered"])
def test_lazy_maps_go_on(process_method, tmp_path, name):
    todo = tasks_with_ends(16, tmp_path)
    with WorkerPool(2, start_method=process_method) as pool:
        found = []
        for result in getattr(pool, name)(faults.end_once, todo, chunk_size=2, on_worker_death="retry"):
            found.append(result)
        assert sorted(found) == [(value, end) for value, _, end in todo]


def test_large_results_survive_their_workers(process_method, tmp_path):
    numpy = pytest.importorskip("numpy")
    todo = tasks_with_ends(10, tmp_path)
    with WorkerPool(2, start_method=process_method) as pool:
        kept = []
        for value, array in enumerate(
            pool.imap(faults.array_or_end, todo, chunk_size=1, on_worker_death="retry", max_retries=2)
        ):
            kept.append(array)
            assert (array == value).all()
    for value, array in enumerate(kept):  # when the pool and its memory are gone
        assert numpy.array_equal(array, numpy.full(200_000, value))


def test_max_retries_is_kept(process_method, tmp_path):
    with WorkerPool(1, start_method=process_method) as pool:
        for retries in (0, 2):
            folder = tmp_path / str(retries)
            folder.mkdir()
            with pytest.raises(WorkerDiedError):
                pool.map(faults.end_always, [(1, str(folder))], on_worker_death="retry", max_retries=retries)
            assert len(list(folder.iterdir())) == retries + 1
        assert pool.map(tasks.double, [4]) == [8]


def test_death_in_the_place_of_a_result(process_method, tmp_path):
    with WorkerPool(2, start_method=process_method) as pool:
        found = pool.map(
            faults.end_at, [(i, i if i % 4 == 1 else -1, "SIGKILL") for i in range(12)], chunk_size=3, on_error="return"
        )
    assert [i for i, result in enumerate(found) if isinstance(result, WorkerDiedError)] == [1, 5, 9]
    assert [result for result in found if not isinstance(result, WorkerDiedError)] == [0, 2, 3, 4, 6, 7, 8, 10, 11]
    assert all(f"Arg 0: {i}" in found[i].args_repr for i in (1, 5, 9))


def test_apply_async_with_retries_and_callbacks(process_method, tmp_path):
    done, failed = [], []
    with WorkerPool(2, start_method=process_method) as pool:
        results = [
            pool.apply_async(
                faults.end_once,
                item,
                callback=done.append,
                error_callback=failed.append,
                on_worker_death="retry",
            )
            for item in tasks_with_ends(12, tmp_path)
        ]
        lost = pool.apply_async(faults.end_at, (0, 0, "abort"), callback=done.append, error_callback=failed.append)
        with pytest.raises(WorkerDiedError):
            lost.get(50)
        assert [result.get(50)[0] for result in results] == list(range(12))
    assert sorted(done) == sorted(result.get() for result in results)
    assert [error.signal for error in failed] == [signal.SIGABRT]


@pytest.mark.parametrize("inner", ["fork", "spawn"])
def test_nested(process_method, inner, tmp_path):
    for i in range(2):
        (tmp_path / str(i)).mkdir()
    with WorkerPool(2, start_method=process_method, daemon=False) as pool:
        found = pool.map(
            faults.sum_of_pool, [([1, 2, 3, 4], str(tmp_path / str(i)), "SIGKILL", inner) for i in range(2)]
        )
    assert found == [10, 10]


def test_stats_tell_of_the_last_death(process_method, tmp_path):
    with WorkerPool(1, start_method=process_method, keep_alive=True) as pool:
        assert pool.map(abs, [-1]) == [1]
        assert pool.stats()[0]["died"] is None
        for how, told in (("exit 3", "exit code 3"), ("SIGKILL", "SIGKILL")):
            folder = tmp_path / how
            folder.mkdir()
            pool.map(faults.end_once, [(0, str(folder), how)], on_worker_death="retry")
            assert pool.stats()[0]["died"] == told
        pool.stop_and_join()


def test_many_threads_ask_how_a_worker_died_while_its_pool_ends(tmp_path):
    over, told, failed = threading.Event(), set(), []

    def ask():
        try:
            while not over.is_set():
                told.update(worker["died"] for worker in pool.stats())
        except Exception as error:
            failed.append(error)

    with WorkerPool(1) as pool:
        threads = [threading.Thread(target=ask) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            for i in range(10):
                pool.map(faults.end_once, [(i, str(tmp_path), "SIGKILL")], on_worker_death="retry")
        finally:
            over.set()
            for thread in threads:
                thread.join()
    assert not failed
    assert told <= {None, "SIGKILL"}


def test_a_task_that_closes_all_descriptors(process_method):
    """Code that makes a daemon of itself does so. Its answer comes, and then another worker."""
    with WorkerPool(2, start_method=process_method) as pool:
        for _ in range(3):
            assert pool.apply(faults.close_all_descriptors, (7,)) == 7
        assert pool.map(faults.close_all_descriptors, range(4), chunk_size=1, on_worker_death="retry") == [0, 1, 2, 3]
        assert pool.map(abs, range(-20, 0), chunk_size=1) == list(range(20, 0, -1))


def test_init_and_exit_that_end_their_worker(process_method):
    with WorkerPool(1, start_method=process_method) as pool:
        with pytest.raises((WorkerDiedError, RuntimeError)):
            pool.map(tasks.double, range(4), worker_init=os.abort)
        assert pool.map(tasks.double, [1]) == [2]
        found = pool.map(tasks.double, [1, 2], worker_exit=os.abort)
        assert found == [2, 4]
        assert pool.map(tasks.double, [1]) == [2]


# ---- Kills from outside, at any moment --------------------------------------------------------------------------


def storm(pool, stop, kinds, seed):
    """Sends signals to workers until it is told to stop. Returns how many times."""
    dice = random.Random(seed)
    sent = 0
    while not stop.wait(0.1):
        # Three deaths in a row before a worker has said that it lives are taken for a fault of the program.
        victims = [worker["pid"] for worker in pool.stats() if worker["state"] in ("wait", "work")]
        if not victims:
            continue
        try:
            pid = dice.choice(victims)
            for number in dice.choice(kinds):
                os.kill(pid, number)
            sent += 1
        except ProcessLookupError:
            pass
    return sent


KINDS = [
    (signal.SIGKILL,),
    (signal.SIGSEGV,),
    (signal.SIGSTOP, signal.SIGCONT),
    (signal.SIGSTOP, signal.SIGKILL),
    (signal.SIGABRT,),
]


def test_a_short_storm(process_method):
    with WorkerPool(2, start_method=process_method, keep_alive=True) as pool:
        stop = threading.Event()
        sent = []
        pool.map(tasks.double, [1])
        killer = threading.Thread(target=lambda: sent.append(storm(pool, stop, KINDS, 1)))
        killer.start()
        try:
            for i in range(3):
                todo = [(value, 0.005) for value in range(60)]
                found = pool.map(
                    faults.slowly, todo, chunk_size=1 + 3 * i, on_worker_death="retry", max_retries=1_000_000
                )
                assert found == list(range(60))
        finally:
            stop.set()
            killer.join()
        assert sent[0] > 0
        assert pool.map(tasks.double, [1]) == [2]


# ---- The parent --------------------------------------------------------------------------------------------------

PARENT = """
import os, sys, time
sys.path.insert(0, {here!r})
import faults
from tercio import WorkerPool
def work(value, nested, method):
    print(os.getpid(), flush=True)
    if nested:
        with WorkerPool(2, start_method=method) as pool:
            pool.map(work, [(i, False, method) for i in range(2)])
    while True:
        pass
if __name__ == "__main__":
    method, nested = sys.argv[1], sys.argv[2] == "nested"
    print("starting", flush=True)
    with WorkerPool(2, start_method=method, daemon=False) as pool:
        pool.map(work, [(i, nested, method) for i in range(2)])
"""


def until_gone(pids, seconds):
    """Waits on handles of processes. Returns those that still live."""
    import select

    left = {}
    for pid in pids:
        try:
            left[os.pidfd_open(pid)] = pid
        except ProcessLookupError:
            pass
    poll = select.poll()
    for fd in left:
        poll.register(fd, select.POLLIN)
    import time

    end = time.monotonic() + seconds
    while left and time.monotonic() < end:
        for fd, _ in poll.poll(max(0, (end - time.monotonic()) * 1000)):
            poll.unregister(fd)
            os.close(fd)
            del left[fd]
    for fd in left:
        os.close(fd)
    return set(left.values())


@pytest.mark.parametrize("nested", ["flat", "nested"])
def test_parent_killed_while_its_workers_are_busy(process_method, nested, tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(PARENT.format(here=str(HERE)))
    with subprocess.Popen(
        [sys.executable, str(script), process_method, nested], stdout=subprocess.PIPE, text=True
    ) as parent:
        expected_lines = 1 + (6 if nested == "nested" else 2)
        for _ in range(expected_lines):
            assert parent.stdout.readline()
        family = descendants(parent.pid)
        assert len(family) >= expected_lines - 1
        parent.kill()
        left = until_gone(family, 10)  # a second is what we promise; a loaded machine may take its time
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        assert not left
        assert not descendants(parent.pid)


@pytest.mark.parametrize("nested", ["flat", "nested"])
def test_parent_killed_while_it_starts(process_method, nested, tmp_path):
    """At moments spread over the start, so that some of them hit every part of it."""
    script = tmp_path / "parent.py"
    script.write_text(PARENT.format(here=str(HERE)))
    for step in range(6):
        with subprocess.Popen(
            [sys.executable, str(script), process_method, nested], stdout=subprocess.PIPE, text=True
        ) as parent:
            assert parent.stdout.readline() == "starting\n"
            if nested == "nested" and step:  # the inner pools start when the outer one's tasks have begun
                assert parent.stdout.readline()
            threading.Event().wait(0.012 * step)
            parent.send_signal(signal.SIGSTOP)
            family = descendants(parent.pid)
            parent.kill()
            left = until_gone(family, 10)
            # A process that still held the pipe would keep us here: its end is the last descendant's.
            for pid in left:
                os.kill(pid, signal.SIGKILL)
            parent.stdout.read()
            assert not left
