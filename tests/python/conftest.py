"""What every test of the Python face shares: the start methods, and the proof that nothing is left behind."""

from __future__ import annotations

import gc
import os
import sys
import threading
from pathlib import Path

import pytest
from tercio import WorkerPool

sys.path.insert(0, str(Path(__file__).parent))  # workers import the tests' functions by name
from contract_report import Report
from support import descendants, descriptors

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

pytest.register_assert_rewrite("dashboards")  # its fixtures say what they found

METHODS = ("fork", "spawn", "forkserver", "threading")
PROCESS_METHODS = METHODS[:3]


def pytest_configure(config: pytest.Config) -> None:
    """The limit on a test's time is a thread of pytest's, so in here every fork would warn."""
    config.addinivalue_line("filterwarnings", "ignore:This process forks workers while other threads:RuntimeWarning")
    config.addinivalue_line("markers", "contract(line, ...): the lines of the contract (contract.py) that a test holds")
    config.pluginmanager.register(Report())
    config.addinivalue_line("markers", "leaves_threads: a call that can't be interrupted outlives its thread pool")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """That a thread stays is said in a warning, which is no error where that is the point."""
    for item in items:
        if item.get_closest_marker("leaves_threads"):
            item.add_marker(pytest.mark.filterwarnings("ignore:.*left behind as daemon:RuntimeWarning"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """With ``make test-dev``: what a worker has left open is only written to standard error, so read that."""
    report = yield
    if sys.flags.dev_mode and call.when == "teardown" and report.passed:
        # An import that runs out of stack leaves its file open; that is the interpreter's.
        lines = [line for line in report.capstderr.splitlines() if "ResourceWarning" in line and ".pyc" not in line]
        if lines:
            report.outcome = "failed"
            report.longrepr = "Left open by a worker:\n" + report.capstderr
    return report


@pytest.fixture(params=METHODS)
def start_method(request: pytest.FixtureRequest) -> str:
    """Each start method in turn."""
    return request.param


@pytest.fixture(params=PROCESS_METHODS)
def process_method(request: pytest.FixtureRequest) -> str:
    """Each start method whose workers are processes."""
    return request.param


@pytest.fixture(scope="session", autouse=True)
def kept_for_the_process() -> None:
    """What lives as long as the process, like the forkserver, shall not count as left behind."""
    import multiprocessing
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()
    multiprocessing.Value("i", 0)  # multiprocessing keeps the memory that it takes from
    for method in PROCESS_METHODS:
        with WorkerPool(1, start_method=method) as pool:
            pool.map(abs, [1])


@pytest.fixture(autouse=True)
def nothing_left_behind(request: pytest.FixtureRequest, kept_for_the_process: None) -> Iterator[None]:
    """After a test no process, thread or descriptor is left that was not there before it."""
    gc.collect()
    processes, threads, files = descendants(os.getpid()), set(threading.enumerate()), descriptors()
    yield
    gc.collect()
    assert descendants(os.getpid()) <= processes
    left = {thread for thread in threading.enumerate() if thread.is_alive()} - threads
    assert not left or request.node.get_closest_marker("leaves_threads")
    now = {} if left else descriptors()  # a call left behind holds what its pool is made of
    assert {name: where for name, where in now.items() if name not in files} == {}
