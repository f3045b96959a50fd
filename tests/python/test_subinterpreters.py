"""Pools of a program's sub-interpreters, which servers such as mod_wsgi run applications in."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

HOST = """
import sys
try:
    import _interpreters as interpreters
    new = lambda legacy: interpreters.create("legacy" if legacy else "isolated")
except ImportError:
    import _xxsubinterpreters as interpreters
    new = lambda legacy: interpreters.create(isolated=not legacy)
inner = new(sys.argv[1] == "legacy")
failed = interpreters.run_string(inner, sys.argv[2])
if failed is not None:
    sys.exit(failed.formatted)
interpreters.destroy(inner)
"""


def run(body, kind="legacy"):
    """What a program prints in a sub-interpreter, and that it comes to its end."""
    code = f"import sys\nsys.path[:] = {sys.path!r}\n" + textwrap.dedent(body)
    done = subprocess.run(
        [sys.executable, "-c", HOST, kind, code], capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


def test_every_method_works_or_is_refused(start_method):
    body = f"""
        import math
        from tercio import WorkerPool
        with WorkerPool(2, start_method={start_method!r}) as pool:
            for _ in range(2):
                try:
                    print(pool.map(math.sqrt, [1, 4]) == [1, 2], pool.apply(pow, (2, 3)))
                except RuntimeError as error:
                    print(pool.stats(), "start_method 'fork'" in str(error), "threading" in str(error))
    """
    assert run(body) == (["[]", "True", "True"] if start_method == "fork" else ["True", "8"]) * 2


@pytest.mark.parametrize("method", ["spawn", "forkserver", "threading"])
def test_work_that_nobody_wants_any_more_is_dropped(method):
    body = f"""
        import math
        from tercio import WorkerPool
        with WorkerPool(2, start_method={method!r}) as pool:
            for _ in range(3):
                try:
                    pool.map(math.sqrt, [1, 4, -1, *range(500)], chunk_size=1)
                except ValueError:
                    results = pool.imap(math.sqrt, range(500), chunk_size=1)
                    print(next(results))
                    results.close()
            print(pool.map(math.sqrt, [9]) == [3])
    """
    assert run(body) == ["0.0"] * 3 + ["True"]


@pytest.mark.parametrize("method", ["spawn", "forkserver", "threading"])
def test_exit_functions_and_callbacks_run(method):
    body = f"""
        import math
        from tercio import WorkerPool
        got = []
        with WorkerPool(2, start_method={method!r}) as pool:
            results = [pool.apply_async(abs, n, callback=got.append) for n in range(20)]
            print(sum(result.get() for result in results), sum(got))
            pool.stop_and_join()
            pool.map(abs, range(8), worker_exit=dict, worker_lifespan=1, chunk_size=1)
            pool.stop_and_join()
            print(len(pool.get_exit_results()))
    """
    assert run(body) == ["190", "190", "8"]


def test_an_isolated_one_works_or_refuses_the_import():
    body = """
        import math
        try:
            from tercio import WorkerPool
        except ImportError as error:
            print("subinterpreters" in str(error))
        else:
            with WorkerPool(2, start_method="threading") as pool:
                print(pool.map(math.sqrt, [1, 4]) == [1, 2])
    """
    assert run(body, "isolated") == ["True"]


UNFINISHED = """
import os, sys
try:
    import _interpreters as interpreters
    new = lambda: interpreters.create("legacy")
except ImportError:
    import _xxsubinterpreters as interpreters
    new = lambda: interpreters.create(isolated=False)
inner = new()
interpreters.run_string(inner, sys.argv[1])
try:
    interpreters.destroy(inner)
except RuntimeError as error:
    print(error, flush=True)
    os._exit(0)
print("destroyed")
"""


@pytest.mark.parametrize("state", ["idle", "busy"])
@pytest.mark.parametrize("method", ["spawn", "forkserver", "threading"])
def test_one_that_is_destroyed_while_a_pool_runs_in_it(method, state):
    body = f"""
        import sys, time
        sys.path[:] = {sys.path!r}
        from tercio import WorkerPool
        pool = WorkerPool(2, start_method={method!r}, keep_alive=True)
        pool.map(abs, [1, 2])
        if {state!r} == "busy":
            pool.apply_async(time.sleep, (0.5,))
    """
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", UNFINISHED, textwrap.dedent(body)],
        capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    # Python 3.12 and older refuse it for any interpreter that has another thread, and run nothing more in it.
    refused = method == "threading" and sys.version_info < (3, 13)
    expected = "interpreter has more than one thread" if refused else "destroyed"
    assert (done.returncode, done.stderr, done.stdout) == (0, "", f"{expected}\n")
