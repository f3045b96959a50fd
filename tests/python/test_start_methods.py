"""What each start method promises of its own."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import textwrap
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tasks
from tercio import WorkerPool

HERE = Path(__file__).parent


def run_script(folder, body, *arguments, **how):
    """Run a program of its own, for what can't be shown inside of pytest."""
    script = folder / "program.py"
    script.write_text(textwrap.dedent(body))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])}
    return subprocess.run(
        [sys.executable, *how.pop("flags", ()), str(script), *arguments],
        capture_output=True, text=True, timeout=55, check=False, env=environment, **how,
    )  # fmt: skip


GLOBALS = """
    import sys
    from tercio import WorkerPool

    value = "as imported"

    def read(_):
        return value, __name__

    def later(x):
        return only_here.sqrt(x)

    def own_import(x):
        import math
        return math.sqrt(x)

    if __name__ == "__main__":
        import math as only_here
        value = "changed"
        with WorkerPool(2, start_method=sys.argv[1], keep_alive=True) as pool:
            print(pool.map(read, [1])[0])
            try:
                print(pool.map(later, [4.0]))
            except NameError as error:
                print(type(error).__name__, "in later" in str(error.__cause__))
            print(pool.map(own_import, [9.0]))
"""


@pytest.mark.contract("1 fresh", "1 copy", "1 same")
def test_globals_and_names_of_the_main_module(start_method, tmp_path):
    done = run_script(tmp_path, GLOBALS, start_method)
    assert done.stderr == ""
    if start_method in ("spawn", "forkserver"):
        assert done.stdout.splitlines() == ["('as imported', '__mp_main__')", "NameError True", "[3.0]"]
    else:
        assert done.stdout.splitlines() == ["('changed', '__main__')", "[2.0]", "[3.0]"]


@pytest.mark.contract("1 same")
@pytest.mark.parametrize("method", ["threading"])
def test_threads_share_objects_as_they_are(method):
    shared, argument = {"lock": object()}, [object()]
    with WorkerPool(2, shared_objects=shared, start_method=method) as pool:
        ((got_shared, got_argument),) = pool.map(tasks.shared_and_value, [(argument,)])
        assert got_shared is shared
        assert got_argument is argument
        assert pool.apply(tasks.shared_and_value, (argument,))[1] is argument


def server_of(_):
    return os.getppid()


@pytest.mark.contract("1 server")
@pytest.mark.parametrize("method", ["forkserver"])
def test_one_server_for_all_pools(method):
    servers = set()
    for _ in range(2):
        with WorkerPool(2, start_method=method) as pool:
            servers |= set(pool.map(server_of, range(2), chunk_size=1))
    assert len(servers) == 1
    assert servers != {os.getpid()}


PRELOAD = """
    import sys
    import tercio

    def loaded(name):
        return name in sys.modules

    if __name__ == "__main__":
        with tercio.WorkerPool(1, start_method="forkserver", preload=["colorsys", "no_such_module"]) as pool:
            print(pool.map(loaded, ["colorsys", "chunk"]))
        try:
            tercio.WorkerPool(1, start_method="forkserver", preload=["json"])
        except RuntimeError as error:
            print("runs already" in str(error))
"""


@pytest.mark.contract("1 preload")
@pytest.mark.parametrize("method", ["forkserver"])
def test_preload(method, tmp_path):
    done = run_script(tmp_path, PRELOAD)
    assert done.stdout.split("\n") == ["[True, False]", "True", ""]
    assert "RuntimeWarning" in done.stderr
    assert "'no_such_module': ModuleNotFoundError: No module named 'no_such_module'" in done.stderr


PRELOAD_NEIGHBOUR = """
    import os
    import sys
    import tercio
    import neighbour

    NUMBER = os.getpid()

    def here(_):
        import neighbour
        main = sys.modules[here.__module__]
        return neighbour.__file__, neighbour.PID != os.getpid(), neighbour.ARGUMENTS, main.NUMBER != os.getpid()

    if __name__ == "__main__":
        preload = ["neighbour", "__main__"] if sys.argv[1] == "with_main" else ["neighbour"]
        with tercio.WorkerPool(2, start_method="forkserver", preload=preload) as pool:
            found = pool.map(here, range(2), chunk_size=1)
        expected = neighbour.__file__, True, sys.argv, sys.argv[1] == "with_main"
        print(found == [expected] * 2 or found)
"""


@pytest.mark.contract("1 preload")
@pytest.mark.parametrize("method", ["forkserver"])
@pytest.mark.parametrize("main", ["with_main", "without_main"])
def test_preload_finds_what_the_program_finds(method, main, tmp_path):
    text = "import os, sys; PID, ARGUMENTS = os.getpid(), list(sys.argv)\n"
    for folder in ("program", "elsewhere"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "neighbour.py").write_text(text)
    path = tmp_path / "program" / "main.py"
    path.write_text(textwrap.dedent(PRELOAD_NEIGHBOUR))
    command = [sys.executable, str(path), main, "an argument"]
    done = subprocess.run(command, cwd=tmp_path / "elsewhere", capture_output=True, text=True, timeout=50)
    assert (done.stderr, done.stdout) == ("", "True\n")


PRELOAD_BROKEN = """
    import tercio

    if __name__ == "__main__":
        with tercio.WorkerPool(1, start_method="forkserver", preload=["leaves", "raises", "colorsys"]) as pool:
            print(pool.map(abs, [-1]))
"""


@pytest.mark.contract("1 preload")
@pytest.mark.parametrize("method", ["forkserver"])
@pytest.mark.parametrize("action", ["default", "error"])
def test_preload_that_fails_is_named(method, action, tmp_path):
    (tmp_path / "leaves.py").write_text("raise SystemExit('no such option')")
    (tmp_path / "raises.py").write_text("raise ValueError('a bad value')")
    path = tmp_path / "main.py"
    path.write_text(textwrap.dedent(PRELOAD_BROKEN))
    command = [sys.executable, "-W", action, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50)
    assert done.stdout == "[1]\n"
    assert "RuntimeWarning" in done.stderr
    assert "'leaves': SystemExit: no such option" in done.stderr
    assert "'raises': ValueError: a bad value" in done.stderr
    assert "colorsys" not in done.stderr


@pytest.mark.contract("1 preload")
@pytest.mark.parametrize("name", ["", ".relative", "a..b", "a\0b"])
def test_preload_takes_absolute_names(name):
    with pytest.raises(ValueError, match="preload"):
        WorkerPool(1, start_method="forkserver", preload=[name])


def private_memory(shared, index):
    """Kilobytes that this process alone has, after it has read all of the shared array and written one page of it."""
    total = float(shared[::512].sum())
    shared[index * 512] = -1.0
    rows = Path("/proc/self/smaps").read_text().splitlines()
    size, found = shared.nbytes // 1024, None
    for number, row in enumerate(rows):
        if row.endswith("kB") and row.startswith("Size:") and int(row.split()[1]) >= size:
            facts = {line.split(":")[0]: line.split()[1] for line in rows[number : number + 20]}
            found = min(int(facts["Private_Dirty"]), found) if found is not None else int(facts["Private_Dirty"])
    return total, found


@pytest.mark.contract("1 shared buffers")
def test_a_shared_array_is_there_once(process_method):
    array = np.ones(4 << 20)  # 32 MB
    with WorkerPool(2, shared_objects=array, start_method=process_method) as pool:
        for total, private in pool.map(private_memory, range(2), chunk_size=1):
            assert total in (array[::512].sum(), array[::512].sum() - 2)
            assert private is not None
            assert private < 4096
    assert array.min() == 1.0


def open_descriptors(_=None):
    found = []
    for entry in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{entry}"))
        except OSError:
            continue
    return found


@pytest.mark.contract("1 descriptors")
def test_a_worker_gets_no_descriptor_that_it_does_not_need(process_method, tmp_path):
    with open(tmp_path / "secret", "w") as secret, WorkerPool(1, start_method=process_method) as pool:
        (found,) = pool.map(open_descriptors, [0])
        if process_method != "fork":  # a fork copies what the parent has, close-on-exec or not
            assert secret.name not in found
            assert len([name for name in found if not name.startswith(("/dev", "pipe"))]) < 12
        else:
            assert len(found) < len(os.listdir("/proc/self/fd")) + 6


@pytest.mark.contract("1 descriptors")
def test_a_forked_worker_has_none_of_other_pools(tmp_path):
    """Three of its own pool's, the memory and two bells, and two files for its last stack. A worker that lives on
    would keep another pool's memory."""
    kinds = Counter(re.sub(r"\d+", "", name) for name in open_descriptors())
    methods = ["fork", "spawn", "forkserver", "threading"]
    with contextlib.ExitStack() as stack:
        others = [stack.enter_context(WorkerPool(2, start_method=method, keep_alive=True)) for method in methods]
        for pool in others:
            assert pool.map(abs, [-1, 2]) == [1, 2]
        unfinished = [pool.apply_async(time.sleep, (0.2,)) for pool in others]
        last = stack.enter_context(WorkerPool(1, start_method="fork", keep_alive=True))
        (found,) = last.map(open_descriptors, [0])
        assert [result.get() for result in unfinished] == [None] * 4
        more = Counter(re.sub(r"\d+", "", name) for name in found) - kinds
        own = {"/memfd:tercio (deleted)": 1, "anon_inode:[eventfd]": 2, "/memfd:tercio-stacks (deleted)": 2}
        assert not more - Counter({**own, "/dev/null": 3}), more
        for pool in [*others, last]:
            assert pool.map(abs, [-1, 2]) == [1, 2]


@pytest.mark.contract("1 typed")
@pytest.mark.parametrize("with_cloudpickle", [True, False])
def test_a_function_typed_into_a_shell(start_method, with_cloudpickle, tmp_path):
    hide = "import sys; sys.modules['cloudpickle'] = None\n"
    typed = ("" if with_cloudpickle else hide) + textwrap.dedent(
        f"""\
        from tercio import WorkerPool
        def f(x): return x + offset

        offset = 5
        pool = WorkerPool(2, start_method={start_method!r}, keep_alive=True)
        print("got", pool.map(f, range(3)))
        def f(x): return -x

        print("got", pool.map(f, range(3)), pool.apply(f, 7))
        pool.terminate()
        exit()
        """
    )
    shown = in_terminal(typed)
    if with_cloudpickle or start_method in ("fork", "threading"):
        assert "got [5, 6, 7]" in shown
        assert "got [0, -1, -2] -7" in shown
        assert "Traceback" not in shown
    else:
        assert "tercio[cloudpickle]" in shown


@pytest.mark.contract("1 typed, no cloudpickle")
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_without_cloudpickle_the_error_names_the_cure(method):
    shown = in_terminal(
        "import sys; sys.modules['cloudpickle'] = None\n"
        "from tercio import WorkerPool\n"
        "def f(x): return x\n\n"
        f"WorkerPool(1, start_method={method!r}).map(f, [1])\n"
        "exit()\n"
    )
    assert "PicklingError" in shown
    assert "pip install tercio[cloudpickle]" in shown


def in_terminal(typed):
    """What an interactive interpreter shows on a terminal when that is typed."""
    import pty
    import select

    pid, terminal = pty.fork()
    if pid == 0:
        os.environ.update(PYTHONPATH=os.pathsep.join(sys.path), TERM="dumb", PYTHON_BASIC_REPL="1")
        os.execv(sys.executable, [sys.executable, "-q", "-i"])
    shown = b""
    lines = typed.splitlines(keepends=True)
    try:
        while True:
            if not select.select([terminal], [], [], 50)[0]:
                raise AssertionError(f"it hangs after: {shown.decode(errors='replace')}")
            try:
                more = os.read(terminal, 65536)
            except OSError:  # the other end is closed
                break
            if not more:
                break
            shown += more
            # One line a prompt: who types ahead loses what the interpreter flushes.
            while lines and (shown.endswith(b">>> ") or shown.endswith(b"... ")):
                line = lines.pop(0).encode()
                os.write(terminal, line)
                shown += b"\0"
    finally:
        os.close(terminal)
        os.waitpid(pid, 0)
    return shown.decode(errors="replace")


UNGUARDED_LATE = """
    from tercio import WorkerPool

    if __name__ == "__main__":
        with WorkerPool(2, keep_alive=True, start_method="fork") as pool:
            print(pool.map(abs, [-1]))
            def late(x):
                return x + 1
            print(pool.map(late, [1, 2]), pool.apply(late, 3))
            def late(x):
                return x + 2
            print(pool.map(late, [1, 2]), pool.apply(late, 3))
"""


@pytest.mark.contract("2 keep_alive")
@pytest.mark.parametrize("method", ["fork"])
def test_functions_defined_after_the_workers_were_forked(method, tmp_path):
    done = run_script(tmp_path, UNGUARDED_LATE)
    assert (done.stderr, done.stdout.splitlines()) == ("", ["[1]", "[2, 3] 4", "[3, 4] 5"])


IMPORT = """
    import sys, os, threading, signal
    before = set(sys.modules)
    fds = sorted(os.listdir("/proc/self/fd"))
    handlers = [signal.getsignal(n) for n in range(1, 32)]
    import tercio
    assert threading.active_count() == 1
    assert len(os.listdir("/proc/self/task")) == 1
    assert sorted(os.listdir("/proc/self/fd")) == fds
    assert [signal.getsignal(n) for n in range(1, 32)] == handlers
    import multiprocessing.process
    assert not multiprocessing.process.active_children()
    heavy = {"multiprocessing.context", "numpy", "tqdm", "asyncio", "concurrent.futures", "dill", "cloudpickle"}
    print(sorted(heavy & (set(sys.modules) - before)))
"""


@pytest.mark.contract("10 import")
def test_importing_does_nothing(tmp_path):
    done = run_script(tmp_path, IMPORT)
    assert done.stderr == ""
    assert eval(done.stdout) in ([], ["multiprocessing.context"])  # `import multiprocessing.process` brings it in


OUTPUT = """
    import sys
    from tercio import WorkerPool

    def say(i):
        sys.stdout.write(f"task {i}\\n")
        sys.stderr.write(f"error {i}\\n")

    if __name__ == "__main__":
        print("before", end="")
        with WorkerPool(2, start_method=sys.argv[1]) as pool:
            pool.map(say, range(10), chunk_size=1)
            print("between")
            pool.map(say, range(10, 20), chunk_size=1)
"""


@pytest.mark.contract("10 output")
def test_output_is_neither_lost_nor_doubled(process_method, tmp_path):
    done = run_script(tmp_path, OUTPUT, process_method)
    assert sorted(done.stderr.splitlines()) == sorted(f"error {i}" for i in range(20))
    text = done.stdout
    assert text.count("before") == text.count("between") == 1
    assert sorted(int(part.split()[0]) for part in text.split("task")[1:]) == list(range(20))


THREADS = """
    import threading, warnings
    from tercio import WorkerPool

    if __name__ == "__main__":
        stop = threading.Event()
        thread = threading.Thread(target=stop.wait)
        thread.start()
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            for _ in range(2):
                with WorkerPool(1, start_method="fork") as pool:
                    pool.map(abs, [1])
        stop.set()
        print([("forkserver" in str(w.message), w.category.__name__) for w in told])
"""


@pytest.mark.contract("10 fork and threads")
@pytest.mark.parametrize("method", ["fork"])
def test_forking_beside_threads_warns_once(method, tmp_path):
    done = run_script(tmp_path, THREADS)
    told = [warning for warning in eval(done.stdout) if warning[1] == "RuntimeWarning"]
    assert (done.stderr, told) == ("", [(True, "RuntimeWarning")])


def say_it(x):
    print("said", x, flush=True)
    sys.stderr.write("told\n")


@pytest.mark.contract("10 output")
def test_output_goes_where_the_parents_goes_now(process_method, capfd):
    """Also under forkserver, whose server was started before pytest redirected anything."""
    with WorkerPool(1, start_method=process_method) as pool:
        pool.map(say_it, [7])
    assert capfd.readouterr() == ("said 7\n", "told\n")
