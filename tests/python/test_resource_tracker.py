"""multiprocessing's resource tracker: a program and all of its workers have one, whoever needs it first."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from support import as_usual

BOUND = 55  # seconds, against a hang
PROCESS_METHODS = ("fork", "spawn", "forkserver")

HEAD = """
    import os
    import signal
    import sys
    from multiprocessing import get_context

    from tercio import WorkerPool

    METHOD, *REST = sys.argv[1:]

    def create(value):
        from multiprocessing.shared_memory import SharedMemory
        block = SharedMemory(create=True, size=8)
        block.buf[0] = value
        block.close()
        return block.name

    def read(name):
        from multiprocessing.shared_memory import SharedMemory
        block = SharedMemory(name=name)
        value = block.buf[0]
        block.close()
        return value

    def remove(name):
        from multiprocessing.shared_memory import SharedMemory
        block = SharedMemory(name=name)
        block.close()
        block.unlink()

    def work(function, arguments):
        with WorkerPool(2, start_method=METHOD, daemon=False) as pool:
            return pool.map(function, arguments)
"""


def run(tmp_path, text, *arguments):
    """The program's output. Returns when its trackers have ended, too, since they have its standard error open."""
    script = tmp_path / "program.py"
    script.write_text(textwrap.dedent(HEAD) + textwrap.dedent(text))
    return subprocess.run(
        [sys.executable, str(script), *arguments],
        capture_output=True,
        text=True,
        timeout=BOUND,
        check=False,
        env=as_usual(),
    )


def assert_fine(done):
    # A second tracker would warn of what isn't its own, or of what it doesn't find any more.
    assert (done.stdout.splitlines()[-1:], done.stderr) == (["fine"], "")


ATTACH = """
    if __name__ == "__main__":
        order, = REST
        if order == "tracker first":
            from multiprocessing import resource_tracker
            resource_tracker.ensure_running()
        elif order == "module first":
            from multiprocessing import resource_tracker
        with WorkerPool(2, start_method=METHOD, keep_alive=True) as pool:
            pool.map(abs, range(4))
            name = create(9)
            assert pool.map(read, [name] * 4) == [9] * 4
            pool.stop_and_join()
        assert work(read, [name] * 4) == [9] * 4
        assert read(name) == 9
        remove(name)
        print("fine")
"""


@pytest.mark.contract("10 resource tracker")
@pytest.mark.parametrize("order", ["pool first", "module first", "tracker first"])
@pytest.mark.parametrize("method", PROCESS_METHODS)
def test_a_block_outlives_the_workers_that_attached_to_it(method, order, tmp_path):
    assert_fine(run(tmp_path, ATTACH, method, order))


CREATED_BY_A_WORKER = """
    if __name__ == "__main__":
        names = work(create, range(8))
        assert "multiprocessing.resource_tracker" not in sys.modules or METHOD == "fork"
        assert work(read, names) == list(range(8))
        assert [read(name) for name in names] == list(range(8))
        work(remove, names)
        print("fine")
"""


@pytest.mark.contract("10 resource tracker")
@pytest.mark.parametrize("method", PROCESS_METHODS)
def test_a_block_outlives_the_worker_that_made_it(method, tmp_path):
    assert_fine(run(tmp_path, CREATED_BY_A_WORKER, method))


NESTED = """
    def nest(inner, name):
        with WorkerPool(2, start_method=inner) as pool:
            values = pool.map(read, [name] * 2)
            names = pool.map(create, [1, 2])
        return values, names

    def in_a_process(name):
        remove(name)

    if __name__ == "__main__":
        name = create(7) if REST else work(create, [7])[0]
        for inner in ("fork", "spawn", "forkserver"):
            for values, names in work(nest, [(inner, name)] * 2):
                assert values == [7, 7]
                assert [read(name) for name in names] == [1, 2]
                for other in names:
                    process = get_context("spawn").Process(target=in_a_process, args=(other,))
                    process.start()
                    process.join()
                    assert process.exitcode == 0
        remove(name)
        print("fine")
"""


@pytest.mark.contract("10 resource tracker")
@pytest.mark.parametrize("begun_by", ["worker", "parent"])
@pytest.mark.parametrize("method", PROCESS_METHODS)
def test_pools_in_workers_and_processes_of_multiprocessing_have_the_same_one(method, begun_by, tmp_path):
    assert_fine(run(tmp_path, NESTED, method, *["parent"] * (begun_by == "parent")))


KILLED = """
    def create_and_die(path):
        with open(path, "w") as file:
            file.write(create(5))
        os.kill(os.getpid(), signal.SIGKILL)

    if __name__ == "__main__":
        path, = REST
        try:
            work(create_and_die, [path])
        except RuntimeError:
            pass
        with open(path) as file:
            name = file.read()
        more = work(create, range(4))
        assert read(name) == 5
        for each in (name, *more):
            remove(each)
        print("fine")
"""


@pytest.mark.contract("10 resource tracker")
@pytest.mark.parametrize("method", PROCESS_METHODS)
def test_it_outlives_the_killed_worker_that_started_it(method, tmp_path):
    assert_fine(run(tmp_path, KILLED, method, str(tmp_path / "name")))


LEAK = """
    if __name__ == "__main__":
        end, = REST
        names = work(create, [3, 4]) + [create(5)]
        assert [read(name) for name in names] == [3, 4, 5]
        print(*names, flush=True)
        if end == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
"""


def is_there(name):
    return (Path("/dev/shm") / name.lstrip("/")).exists()


@pytest.mark.contract("10 resource tracker")
@pytest.mark.parametrize("end", ["returns", "killed"])
@pytest.mark.parametrize("method", PROCESS_METHODS)
def test_what_is_left_behind_is_removed_at_the_programs_end(method, end, tmp_path):
    done = run(tmp_path, LEAK, method, end)
    names = done.stdout.split()
    assert len(names) == 3
    assert not any(map(is_there, names))
    assert done.stderr.count("leaked") == 1 and "3 leaked shared_memory objects" in done.stderr
    assert "Traceback" not in done.stderr


NOT_STARTED = """
    def create_without_one(value):
        import multiprocessing
        multiprocessing.set_executable("/bin/false")
        name = create(value)
        os.wait()  # for what should have become the tracker
        return name

    if __name__ == "__main__":
        print(*work(create_without_one, [3]), flush=True)
"""


@pytest.mark.contract("10 resource tracker")
@pytest.mark.parametrize("method", PROCESS_METHODS)
def test_what_was_registered_is_not_lost_when_its_start_fails(method, tmp_path):
    done = run(tmp_path, NOT_STARTED, method)
    names = done.stdout.split()
    assert len(names) == 1
    assert not any(map(is_there, names))
    assert "1 leaked shared_memory objects" in done.stderr


DIED = """
    def find():
        for entry in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{entry}/cmdline", "rb") as file:
                    command = file.read().split(b"\\0")
            except OSError:
                continue
            if b"tracker" in command and os.fsencode(sys.path[0]) in command:
                return int(entry)

    if __name__ == "__main__":
        assert work(abs, [-1]) == [1]
        first = create(1)
        pid = None
        while pid is None:  # a process that has just begun to run its program has no command line for a moment
            pid = find()
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        second = create(2)
        assert find() != pid
        names = work(create, [3, 4])
        assert work(read, [first, second, *names]) == [1, 2, 3, 4]
        work(remove, [first, second, *names])
        print("fine")
"""


@pytest.mark.contract("10 resource tracker")
@pytest.mark.parametrize("method", PROCESS_METHODS)
def test_one_that_was_killed_is_started_anew_with_a_warning(method, tmp_path):
    done = run(tmp_path, DIED, method)
    assert done.stdout.splitlines() == ["fine"], done.stderr
    assert done.stderr.count("Warning") == 1 and "The resource tracker has died" in done.stderr


THREADS = """
    import threading

    if __name__ == "__main__":
        met, names = threading.Barrier(4), []
        def open_pool():
            with WorkerPool(1, start_method=METHOD) as pool:
                met.wait()
                names.append(pool.apply(create, (1,)))
        threads = [threading.Thread(target=open_pool) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [read(name) for name in names] == [1] * 4
        work(remove, names)
        print("fine")
"""


@pytest.mark.contract("10 resource tracker")
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_pools_of_several_threads_have_the_same_one(method, tmp_path):
    assert_fine(run(tmp_path, THREADS, method))


CLOSED = """
    def close_all():
        if REST == ["used"]:
            from multiprocessing import resource_tracker
            resource_tracker.ensure_running()
        os.closerange(3, 4096)

    if __name__ == "__main__":
        assert work(abs, [-1]) == [1]
        pid = os.fork()
        if pid == 0:
            close_all()
            remove(create(2))
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        close_all()
        name, = work(create, [2])
        assert read(name) == 2
        remove(name)
        print("fine")
"""


@pytest.mark.contract("10 resource tracker")
@pytest.mark.parametrize("used", ["used", "unused"])
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_program_that_closes_its_descriptors_gets_another_one(method, used, tmp_path):
    assert_fine(run(tmp_path, CLOSED, method, used))


def test_a_program_without_shared_memory_starts_none_and_imports_nothing(tmp_path):
    text = """
        if __name__ == "__main__":
            assert work(abs, [-1, -2]) == [1, 2]
            assert "multiprocessing.resource_tracker" not in sys.modules
            with open("/proc/thread-self/children") as file:
                assert file.read() == ""
            print("fine")
    """
    assert_fine(run(tmp_path, text, "spawn"))
