"""What fresh workers get from their parent beside their work: state of the process, and open files."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest
from tercio import WorkerPool


def run_script(tmp_path, text, *arguments, before=()):
    path = tmp_path / "program.py"
    path.write_text(textwrap.dedent(text))
    command = [*before, sys.executable, str(path), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=55, check=False)


STATE = """
    import os, resource, sys
    from tercio import WorkerPool

    def state(_):
        mask = os.umask(0)
        os.umask(mask)
        limits = [resource.getrlimit(getattr(resource, "RLIMIT_" + name)) for name in ("NOFILE", "CORE", "STACK")]
        with open("/proc/self/oom_score_adj") as file:
            score = file.read()
        niceness, policy = os.getpriority(os.PRIO_PROCESS, 0), os.sched_getscheduler(0)
        return mask, niceness, limits, os.sched_getaffinity(0), policy, score

    if __name__ == "__main__":
        method = sys.argv[1]
        with WorkerPool(1, start_method=method) as pool:
            before = pool.map(state, [0])[0]
        os.umask(0o027)
        os.nice(2)
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        for name, soft in (("NOFILE", 300), ("CORE", 0)):
            number = getattr(resource, "RLIMIT_" + name)
            resource.setrlimit(number, (soft, resource.getrlimit(number)[1]))
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("500")
        with WorkerPool(1, start_method=method) as pool:
            print((state(0), before == state(0)) == (pool.map(state, [0])[0], False))
"""


def test_workers_have_the_state_that_their_parent_has_now(process_method, tmp_path):
    done = run_script(tmp_path, STATE, process_method)
    assert (done.stderr, done.stdout) == ("", "True\n")


def deep(n):
    return 0 if n == 0 else 1 + deep(n - 1)


def test_recursion_goes_as_deep_as_in_the_parent(process_method):
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(5000)
    try:
        with WorkerPool(1, start_method=process_method) as pool:
            assert pool.map(deep, [3000]) == [3000]
    finally:
        sys.setrecursionlimit(before)


WITHOUT_PATHS = """
    import ctypes, logging, os, sys
    import tercio
    from tercio import WorkerPool
    from tercio.exception import WorkerDiedError

    def add(shared, _):
        with shared:
            shared.value += 1

    def crash():
        ctypes.string_at(0)

    def log(_):
        logging.getLogger("program").warning("from a worker")

    if __name__ == "__main__":
        method, seen = sys.argv[1], []
        assert not os.path.exists("/proc/self")
        handler = logging.Handler()
        handler.emit = lambda record: seen.append(record.getMessage())
        logging.getLogger("program").addHandler(handler)
        tercio.enable_worker_logging()
        with WorkerPool(2, start_method=method) as pool:
            counter = pool.ctx.Value("i", 0)
            pool.set_shared_objects(counter)
            pool.map(add, range(10))
        with WorkerPool(1, start_method=method) as pool:
            pool.map(log, [1])
            try:
                pool.apply(crash)
            except WorkerDiedError as error:
                print(counter.value, seen, "in crash" in error.stack)
"""


@pytest.mark.skipif(os.getuid() != 0, reason="hiding /proc needs root")
def test_values_logs_and_stacks_come_without_proc(process_method, tmp_path):
    hide = ["unshare", "-m", "sh", "-c", 'mount -t tmpfs none /proc && exec "$@"', "sh"]
    if subprocess.run([*hide, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this system doesn't let /proc be hidden")
    done = run_script(tmp_path, WITHOUT_PATHS, process_method, before=hide)
    assert (done.stderr, done.stdout) == ("", "10 ['from a worker'] True\n")


def send(shared, text):
    shared.send(text)


def test_a_connection_of_two_ways_can_be_shared(process_method):
    with WorkerPool(1, start_method=process_method) as pool:
        here, there = pool.ctx.Pipe()
        pool.set_shared_objects(there)
        pool.map(send, ["hello"])
        assert here.recv() == "hello"
    here.close()
    there.close()
