"""Log records and warnings of workers in the parent's handlers. Each program is one of its own: the switch stays on."""

from __future__ import annotations

import threading

import pytest
from tercio import _log
from test_start_methods import run_script

PROGRAM = """
    import logging, os, signal, sys, threading, warnings
    import tercio
    from tercio import WorkerPool
    from tercio.exception import WorkerDiedError

    log = logging.getLogger("app.part")

    class Odd:
        def __reduce__(self):
            raise TypeError("stays here")
        def __str__(self):
            return "odd"

    class Own(UserWarning):
        pass

    def begin():
        log.info("begin")

    def end():
        log.info("end")

    def work(x):
        log.debug("not wanted")
        log.info("task %d", x, extra={"odd": Odd(), "pair": (x, x)})
        logging.getLogger("app.silent").error("filtered")
        try:
            1 / (x - x)
        except ZeroDivisionError:
            log.exception("failed with %s", Odd())
        warnings.warn("take care", Own)
        return os.getpid()

    def long(size):
        log.info("x" * size)

    def loud(n):
        for i in range(n):
            log.info("%d %s", i, "y" * (i * 97 % 9000))  # up to three pieces

    def many(n):
        threads = [threading.Thread(target=loud, args=(n,)) for _ in range(3)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()

    def die(x):
        log.info("last words")
        os.kill(os.getpid(), signal.SIGKILL)

    def nest(method):
        with WorkerPool(1, start_method=method) as pool:
            pool.map(long, [3])

    class Keep(logging.Handler):
        def __init__(self):
            super().__init__()
            self.records = []
        def emit(self, record):
            assert os.getpid() == parent
            self.records.append(record)

    parent = os.getpid()

    if __name__ == "__main__":
        method = sys.argv[1]
        keep = Keep()
        logging.getLogger().addHandler(keep)
        logging.getLogger("app").setLevel("INFO")
        logging.getLogger("app.silent").addFilter(lambda record: False)
        tercio.enable_worker_logging()

        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("default")
            with WorkerPool(2, start_method=method) as pool:
                pids = pool.map(work, range(6), chunk_size=1, worker_init=begin, worker_exit=end)
        said = [record.getMessage() for record in keep.records]
        assert sorted(t for t in said if t.startswith("task")) == [f"task {i}" for i in range(6)], said
        assert said.count("failed with odd") == 6 and said.count("begin") == said.count("end"), said
        assert len(said) == 12 + 2 * said.count("end") and 1 <= said.count("end") <= 2, said
        record = next(r for r in keep.records if r.getMessage() == "task 3")
        assert record.pair == (3, 3) and str(record.odd) == "odd"
        assert (record.funcName, record.name, record.levelname) == ("work", "app.part", "INFO")
        if method != "threading":
            assert {r.process for r in keep.records} == set(pids)
            assert {r.processName for r in keep.records} <= {"Worker-0", "Worker-1"}
        text = logging.Formatter().format(next(r for r in keep.records if r.levelname == "ERROR"))
        assert "ZeroDivisionError" in text and "in work" in text
        assert [(str(w.message), w.category.__name__) for w in seen] == [("take care", "Own")], seen

        keep.records.clear()
        with WorkerPool(2, start_method=method, keep_alive=True) as pool:
            pool.map(long, [10, 5000, 100_000, 20_000_000], chunk_size=1)
            sizes = {len(r.getMessage()) for r in keep.records}
            assert sizes == {10, 5000, 100_000, 20_000_000 if method == "threading" else 4106}, sizes
            keep.records.clear()
            pool.map(many, [200] * 2, chunk_size=1)
            assert len(keep.records) == 1200, len(keep.records)
            for record in keep.records:
                number, text = record.getMessage().split(" ")
                assert text == "y" * (int(number) * 97 % 9000), (number, len(text))
            if method != "threading":
                keep.records.clear()
                result = pool.apply_async(die, (1,))
                try:
                    result.get()
                except WorkerDiedError:
                    pass
                pool.stop_and_join()
                assert [r.getMessage() for r in keep.records] == ["last words"]

        keep.records.clear()
        warnings.filterwarnings("ignore", "This process forks workers")  # under threading it does
        with WorkerPool(1, start_method=method, daemon=False) as pool:
            pool.map(nest, [(m,) for m in ("fork", "spawn", "threading")], chunk_size=1)
        assert [r.getMessage() for r in keep.records] == ["xxx"] * 3, keep.records

        logging.captureWarnings(True)
        keep.records.clear()
        with WorkerPool(1, start_method=method) as pool:
            pool.map(work, [1])
        assert any(r.name == "py.warnings" and "take care" in r.getMessage() for r in keep.records)
        assert threading.active_count() == 1, threading.enumerate()
        print("done")
"""


@pytest.mark.contract("10 logging")
def test_records_and_warnings_come_home(start_method, tmp_path, monkeypatch):
    monkeypatch.delenv("PYTHONWARNINGS", raising=False)  # they shall be records, not errors
    done = run_script(tmp_path, PROGRAM, start_method, flags=("-X", "dev"))
    assert (done.stderr, done.stdout) == ("", "done\n")


BROKEN = """
    import logging, sys, threading
    import tercio
    from tercio import WorkerPool

    def work(x):
        logging.getLogger().warning("said %d", x)
        return x

    class Broken(logging.Handler):
        def emit(self, record):
            raise LookupError("in the handler")

    class Leaving(logging.Handler):
        def emit(self, record):
            said.append(record.getMessage())
            if len(said) < 3:
                raise SystemExit("of a handler")

    class Blocked(logging.Handler):
        def emit(self, record):
            entered.set()
            free.wait()

    if __name__ == "__main__":
        tercio.enable_worker_logging()
        root = logging.getLogger()
        root.addHandler(Broken())
        with WorkerPool(1, start_method=sys.argv[1]) as pool:
            assert pool.map(work, range(3)) == [0, 1, 2]
        said = []
        root.handlers[:] = [Leaving()]
        with WorkerPool(1, start_method=sys.argv[1]) as pool:
            pool.map(work, range(4))
        assert said == [f"said {n}" for n in range(4)], said
        entered, free = threading.Event(), threading.Event()
        root.handlers[:] = [Blocked()]
        with WorkerPool(1, start_method=sys.argv[1]) as pool:
            result = pool.apply_async(work, (1,))
            entered.wait()
            assert result.get() == 1  # results don't wait for handlers
            free.set()
        print("done")
"""


@pytest.mark.contract("10 logging")
def test_handlers_that_fail_or_block(process_method, tmp_path):
    done = run_script(tmp_path, BROKEN, process_method)
    assert done.stdout == "done\n", done.stderr
    assert done.stderr.count("LookupError: in the handler") == 3
    assert done.stderr.count("SystemExit: of a handler") == 2


ODD = """
    import logging, sys, threading, warnings
    import tercio
    from tercio import WorkerPool

    class Odd(logging.LogRecord):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.lock = threading.Lock()  # can't be pickled

    def begin():
        logging.setLogRecordFactory(Odd)

    def work(x):
        logging.getLogger("app").warning("said %d", x)
        if x == 1:
            warnings.showwarning("a text", UserWarning, "here.py", 7)
        return x

    def spoil(x):
        def factory(*args, **kwargs):
            record = logging.LogRecord(*args, **kwargs)
            record.levelname = threading.Lock()
            return record
        logging.setLogRecordFactory(factory)
        logging.getLogger("app").warning("said %d", x, extra={"more": 1})
        return x

    class Keep(logging.Handler):
        def emit(self, record):
            kept.append(record)

    if __name__ == "__main__":
        kept = []
        logging.getLogger().addHandler(Keep())
        tercio.enable_worker_logging()
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            with WorkerPool(1, start_method=sys.argv[1], keep_alive=True) as pool:
                assert pool.map(work, range(3), worker_init=begin) == [0, 1, 2]
                assert [(r.getMessage(), "lock" in r.lock) for r in kept] == [(f"said {n}", True) for n in range(3)]
                assert pool.map(spoil, [3]) == [3]
        assert kept[3].getMessage() == "said 3" and "lock" in kept[3].levelname
        shown = [(str(w.message), w.category, w.lineno) for w in seen if w.filename == "here.py"]
        assert shown == [("a text", UserWarning, 7)], shown
        print("done")
"""


@pytest.mark.contract("10 logging")
def test_records_that_are_not_as_usual(process_method, tmp_path):
    """A program's own factory, what can't be pickled, and a warning that is a text are no errors of who logs."""
    done = run_script(tmp_path, ODD, process_method)
    assert (done.stderr, done.stdout) == ("", "done\n")


FILTERED = """
    import logging, sys
    import tercio
    from tercio import WorkerPool

    log = logging.getLogger("app")

    class Mark(logging.Filter):
        def __init__(self, mark):
            super().__init__()
            self.mark = mark
        def filter(self, record):
            record.msg = self.mark + record.msg
            return "dropped" not in record.msg

    def begin():
        log.addFilter(Mark("worker "))

    def work(x):
        log.warning("said %d", x)
        log.warning("dropped %d", x)
        return x

    def nest(x):
        with WorkerPool(1, start_method=sys.argv[1]) as pool:
            pool.map(work, [x])

    class Keep(logging.Handler):
        def emit(self, record):
            kept.append(record.getMessage())

    log.addFilter(Mark("program "))  # where the main module is run again too

    if __name__ == "__main__":
        kept = []
        handler = Keep()
        handler.addFilter(Mark("handler "))
        log.addHandler(handler)
        log.addFilter(Mark("parent "))
        tercio.enable_worker_logging()
        with WorkerPool(1, start_method=sys.argv[1]) as pool:
            pool.map(work, [1], worker_init=begin)
        with WorkerPool(1, start_method=sys.argv[1], daemon=False) as pool:
            pool.map(nest, [2], worker_init=begin)
        print(kept)
"""


@pytest.mark.contract("10 logging")
def test_each_filter_is_asked_once(process_method, tmp_path):
    """The program's in the parent, what a worker adds in the worker."""
    done = run_script(tmp_path, FILTERED, process_method)
    nested = "handler parent program worker said 2" if process_method == "fork" else "handler parent program said 2"
    assert (done.stderr, done.stdout) == ("", f"{['handler parent program worker said 1', nested]}\n")


def piece(pid, number, flags, data=b""):
    return _log._HEAD.pack(pid, number, len(data), flags) + data


def test_pieces_of_writers_that_died(monkeypatch):
    """What was begun is dropped, what is whole is handed on, and no more is kept than a bound."""
    handled = []
    monkeypatch.setattr(_log, "_handle", handled.append)
    reader = _log._Reader()
    try:
        whole = _log.FIRST | _log.LAST
        reader.take(piece(1, 0, _log.FIRST, b"dead"))
        reader.take(piece(2, 0, _log.FIRST, b"a") + piece(3, 0, whole, b"b") + piece(2, 0, 0, b"c")[:5])
        reader.take(piece(2, 0, 0, b"c")[5:] + piece(2, 0, _log.LAST, b"d") + piece(4, 7, _log.LAST, b"no beginning"))
        assert handled == [b"b", b"acd"] and list(reader.parts) == [(1, 0)]
        for pid in range(10, 10 + 2 * _log.MOST_OPEN):
            reader.take_piece(pid, 0, _log.FIRST, b"dead")
        assert len(reader.parts) == _log.MOST_OPEN
        reader.take_piece(1, 0, whole, b"a process of the same number")
        assert handled[2:] == [b"a process of the same number"]
        reader.take_piece(10, 0, _log.FIRST, b"of one that died")
        reader.take_piece(10, 0, whole, b"of the next of that number")
        assert handled[3:] == [b"of the next of that number"]
    finally:
        reader.end()


def test_who_waits_while_the_reader_ends():
    """Nobody waits for a reader that is gone, and nobody writes where its pipe was."""
    for _ in range(50):
        reader = _log._Reader()
        started = threading.Barrier(3)
        waiting = [threading.Thread(target=lambda: (started.wait(), reader.wait_for_all())) for _ in range(2)]
        for thread in waiting:
            thread.start()
        started.wait()
        reader.end()
        for thread in waiting:
            thread.join()
        assert not reader.marks and not reader.writers
        assert not reader.mark(1)
        reader.wait_for_all()
    # One whose mark comes behind the last look.
    reader = _log._Reader()
    reached = reader.marks[5] = threading.Lock()
    reached.acquire()
    reader.end()
    assert not reached.locked()


FORKED = """
    import logging, os, sys
    import tercio
    from tercio import WorkerPool

    def work(x):
        logging.getLogger().warning("said %d", x)

    class Keep(logging.Handler):
        def emit(self, record):
            kept.append(record.getMessage())

    def once():
        kept.clear()
        with WorkerPool(1, start_method=sys.argv[1]) as pool:
            pool.map(work, range(3))
        assert kept == [f"said {n}" for n in range(3)], kept

    if __name__ == "__main__":
        kept = []
        logging.getLogger().addHandler(Keep())
        tercio.enable_worker_logging()
        once()
        pid = os.fork()
        once()
        if pid == 0:
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        print("done")
"""


@pytest.mark.contract("10 logging")
def test_a_fork_of_the_application_has_pools_that_log(process_method, tmp_path):
    done = run_script(tmp_path, FORKED, process_method)
    assert (done.stderr, done.stdout) == ("", "done\n")
