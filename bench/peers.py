"""The contenders, each behind the same face: ``with open_it() as call: call(func, items, chunk)``.

`chunk` None is the contender's own choice. Where a peer has no choice of its own, its best idiom stands in, and the
case says so.
"""

from __future__ import annotations

from contextlib import contextmanager

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    Call = Callable[..., list[Any]]

N = 2  # workers


@contextmanager
def tercio(method: str = "fork", n: int = N, **options: Any) -> Iterator[Call]:
    from tercio import WorkerPool

    with WorkerPool(n, start_method=method, keep_alive=True, **options) as pool:

        def call(func: Any, items: Any, chunk: int | None = None) -> Any:
            return pool.map(func, items, chunk_size=chunk, concatenate_numpy_output=False)

        yield call


@contextmanager
def mpire(method: str = "fork", n: int = N, **options: Any) -> Iterator[Call]:
    from mpire import WorkerPool

    with WorkerPool(n, start_method=method, keep_alive=True, **options) as pool:

        def call(func: Any, items: Any, chunk: int | None = None) -> Any:
            return pool.map(func, items, chunk_size=chunk, concatenate_numpy_output=False)

        yield call


@contextmanager
def pool(method: str = "fork", n: int = N, **options: Any) -> Iterator[Call]:
    import multiprocessing

    with multiprocessing.get_context(method).Pool(n, **options) as made:
        yield made.map


@contextmanager
def executor(method: str = "fork", n: int = N) -> Iterator[Call]:
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    with ProcessPoolExecutor(n, mp_context=multiprocessing.get_context(method)) as made:

        def call(func: Any, items: Any, chunk: int | None = None) -> Any:
            if chunk is None:  # the executor's own is 1; who knows it asks for what the others choose
                chunk = max(1, len(items) // (64 * n))
            return list(made.map(func, items, chunksize=chunk))

        yield call


@contextmanager
def threads(n: int = N) -> Iterator[Call]:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(n) as made:
        yield lambda func, items, chunk=None: list(made.map(func, items))


@contextmanager
def joblib(n: int = N) -> Iterator[Call]:
    from joblib import Parallel, delayed

    with Parallel(n_jobs=n, backend="loky", batch_size="auto") as parallel:

        def call(func: Any, items: Any, chunk: int | None = None) -> Any:
            parallel.batch_size = "auto" if chunk is None else chunk
            return parallel(delayed(func)(item) for item in items)

        yield call


@contextmanager
def loky(n: int = N) -> Iterator[Call]:
    from joblib.externals.loky import get_reusable_executor

    made = get_reusable_executor(max_workers=n)
    try:

        def call(func: Any, items: Any, chunk: int | None = None) -> Any:
            return list(made.map(func, items, chunksize=chunk or max(1, len(items) // (64 * n))))

        yield call
    finally:
        made.shutdown(wait=True)


def _fifo_worker(func: Any, tasks: Any, results: Any) -> None:
    from queue import Empty

    while True:
        try:
            messages = tasks.get_many(block=True, timeout=1e6, max_messages_to_get=64)
        except Empty:
            continue
        answers = [(i, func(item)) for i, item in (m for m in messages if m is not None)]
        if answers:
            results.put_many(answers, timeout=1e6)
        if None in messages:
            for _ in range(messages.count(None) - 1):  # another's
                tasks.put(None)
            return


@contextmanager
def faster_fifo(func: Any, n: int = N) -> Iterator[Call]:
    """Two queues and processes around them, as its users write it. Many a call is its best idiom."""
    import multiprocessing

    import faster_fifo_reduction  # noqa: F401 - lets its queues be inherited
    from faster_fifo import Queue

    tasks, results = Queue(8_000_000), Queue(8_000_000)
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_fifo_worker, args=(func, tasks, results), daemon=True) for _ in range(n)]
    for worker in workers:
        worker.start()

    def call(_: Any, items: Any, chunk: int | None = None) -> Any:
        found: list[Any] = [None] * len(items)
        step, sent, got = 64, 0, 0
        while got < len(items):
            while sent < len(items) and sent - got < 16 * step:
                tasks.put_many([(i, items[i]) for i in range(sent, min(sent + step, len(items)))], timeout=1e6)
                sent = min(sent + step, len(items))
            for i, value in results.get_many(block=True, timeout=1e6, max_messages_to_get=1000):
                found[i] = value
                got += 1
        return found

    try:
        yield call
    finally:
        for _ in workers:
            tasks.put(None)
        for worker in workers:
            worker.join()
        tasks.close()
        results.close()


@contextmanager
def bare_forks(n: int = N) -> Iterator[Call]:
    """Forked processes with fixed shares and nothing to hand out: what two CPUs of this machine can do at best."""
    import os

    def call(func: Any, items: Any, chunk: int | None = None) -> Any:
        children = []
        for i in range(n):
            pid = os.fork()
            if pid == 0:
                for item in items[i::n]:
                    func(item)
                os._exit(0)
            children.append(pid)
        for pid in children:
            os.waitpid(pid, 0)

    yield call


@contextmanager
def serial() -> Iterator[Call]:
    yield lambda func, items, chunk=None: [func(item) for item in items]
