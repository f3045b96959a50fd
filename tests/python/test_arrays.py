"""Arrays and other large memory: both ways, beyond the pool's life, and without a pool that waits for its user."""

from __future__ import annotations

import array
import gc
import os

import numpy as np
import pytest
import tasks
from support import descendants
from tercio import WorkerPool

MB = 1 << 20
RECORD = np.dtype([("id", "i4"), ("at", "f8", (2,)), ("name", "S5")])


def arrays(n):
    """One of each kind, of about n bytes."""
    count = max(n // 8, 1)
    base = np.arange(count, dtype=np.float64)
    structured = np.zeros(max(n // RECORD.itemsize, 1), RECORD)
    structured["id"] = np.arange(len(structured))
    square = np.arange(max(int(count**0.5), 2) ** 2, dtype=np.int64).reshape(max(int(count**0.5), 2), -1)
    frozen = base.copy()
    frozen.flags.writeable = False
    return {
        "contiguous": base,
        "fortran": np.asfortranarray(square),
        "strided": np.arange(2 * count)[::2],
        "backwards": base[::-1],
        "transposed": square.T,
        "broadcast": np.broadcast_to(np.arange(4.0), (max(count // 4, 1), 4)),
        "structured": structured,
        "field of a structure": structured["at"],
        "objects": np.array([{"i": i} for i in range(min(count, 500))], dtype=object),
        "texts": np.array(["some", "text"] * (count // 2 + 1)),
        "dates": np.arange(count).astype("datetime64[s]"),
        "other byte order": base.astype(">f8"),
        "bools": base % 2 == 0,
        "complex": base * 1j,
        "read-only": frozen,
        "no dimension": np.array(1.5),
        "empty": np.zeros((0, 3)),
        "bytes": bytes(n),
        "bytearray": bytearray(b"ab") * (n // 2),
        "array.array": array.array("d", base),
    }


def equal(a, b):
    if isinstance(a, np.ndarray):
        return type(a) is type(b) and a.dtype == b.dtype and a.shape == b.shape and bool((a == b).all())
    return type(a) is type(b) and a == b


@pytest.mark.parametrize("size", [64, 200_000])
def test_every_kind_both_ways(start_method, size):
    given = arrays(size)
    with WorkerPool(2, start_method=start_method) as pool:
        sent = [(value, name) for name, value in given.items()]
        # Each is compared in the worker too: a mistake on the way there must not be undone by one on the way back.
        back = pool.map(tasks.array_with_sum, sent, chunk_size=3)
    for (value, name), (result, checksum) in zip(sent, back):
        assert equal(result, value), name
        assert checksum == tasks.checksum(value), name


def test_what_is_received_may_be_written(process_method):
    given = [np.arange(n, dtype=np.float64) for n in (10, 50_000)]
    with WorkerPool(2, start_method=process_method) as pool:
        back = pool.map(tasks.array_set_first, given, chunk_size=1, concatenate_numpy_output=False)
        assert [a[0] for a in given] == [0.0, 0.0]  # the worker wrote into its own
        for result, value in zip(back, given):
            assert result[0] == -1.0 and (result[1:] == value[1:]).all()
            result += 1
            assert result[0] == 0.0
        inside = pool.apply(tasks.array_set_first_in, ({"a": [np.zeros(50_000)]},))
        assert inside["a"][0][0] == -1.0
        inside["a"][0][:] = 2


def test_arrays_in_dicts_and_keywords(start_method):
    large = np.arange(40_000.0)
    with WorkerPool(2, start_method=start_method) as pool:
        back = pool.map(tasks.array_by_name, [{"a": large, "b": i} for i in range(6)], concatenate_numpy_output=False)
        assert all(equal(result, large * i) for i, result in enumerate(back))
        assert equal(pool.apply(tasks.array_by_name, (large,), {"b": 3}), large * 3)


def test_results_outlive_the_pool(start_method):
    with WorkerPool(2, start_method=start_method) as pool:
        kept = pool.map(tasks.array_of, range(20), chunk_size=3, concatenate_numpy_output=False)
        part = pool.apply(tasks.array_of, (99,))[10:20]
    del pool
    gc.collect()
    assert all((result == i).all() for i, result in enumerate(kept))
    assert (part == 99).all()
    for result in kept:
        result += 1
    assert all((result == i + 1).all() for i, result in enumerate(kept))


def _in_a_fork(check):
    """Start a child that waits for a byte, then runs the check; returns what makes it go on and tells its verdict."""
    there, here = os.pipe()
    pid = os.fork()
    if pid == 0:
        verdict = 1
        try:
            os.close(here)
            os.read(there, 1)
            verdict = 0 if check() else 2
        finally:
            os._exit(verdict)
    os.close(there)

    def finish():
        os.write(here, b"g")
        os.close(here)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    return finish


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_keeps_what_the_parent_had(process_method):
    with WorkerPool(2, start_method=process_method, keep_alive=True) as pool:
        kept = pool.map(tasks.array_of, range(8), chunk_size=1, concatenate_numpy_output=False)
        finish = _in_a_fork(lambda: all((result == i).all() for i, result in enumerate(kept)))
        # The parent gives its memory back, and the workers write there again.
        kept.clear()
        gc.collect()
        for round in range(4):
            pool.map(tasks.array_of, range(100 + round, 120 + round), chunk_size=1)
        assert finish() == 0


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_may_write_and_drop_what_it_has(process_method):
    with WorkerPool(2, start_method=process_method, keep_alive=True) as pool:
        kept = pool.map(tasks.array_of, range(8), chunk_size=1, concatenate_numpy_output=False)

        def spoil():
            for result in kept:
                result[:] = -1
            kept.clear()
            gc.collect()
            return True

        assert _in_a_fork(spoil)() == 0
        assert all((result == i).all() for i, result in enumerate(kept))
        assert pool.map(tasks.identity, range(10)) == list(range(10))


def test_who_keeps_every_result_stalls_nobody(process_method):
    # More than may wait unread in an arena (256 MB), all of it held.
    with WorkerPool(2, start_method=process_method) as pool:
        kept = list(pool.imap_unordered(tasks.array_of_mb, [(i, 10) for i in range(30)], chunk_size=1))
        assert sorted(result[0] for result in kept) == list(range(30))
        assert all(result[0] == result[-1] for result in kept)


def test_a_small_piece_is_kept_of_each(process_method):
    with WorkerPool(2, start_method=process_method, keep_alive=True) as pool:
        pieces = []
        for round in range(5):
            for i, result in enumerate(pool.imap(tasks.array_of, range(20), chunk_size=1)):
                pieces.append((i, result[:3]))
        assert all((piece == i).all() for i, piece in pieces)


def _memory(pool):
    pids = [os.getpid(), *(worker["pid"] for worker in pool.stats())]
    total = 0
    for pid in pids:
        with open(f"/proc/{pid}/smaps_rollup") as file:
            total += sum(1024 * int(line.split()[1]) for line in file if line.startswith("Pss:"))
    return total


def _mixed(pool, rounds, largest):
    sizes = [1 << 10, 10 << 10, 33 << 10, 100 << 10, MB, 3 * MB, 8 * MB, 64 * MB, 256 * MB]
    sizes = [size for size in sizes if size <= largest]
    for round in range(rounds):
        given = [np.full(sizes[(i * 7 + round) % len(sizes)] // 8, float(i)) for i in range(12)]
        back = pool.map(tasks.array_set_first, given, chunk_size=1 + round % 3, concatenate_numpy_output=False)
        assert all(result[0] == -1.0 and result[-1] == value[-1] for result, value in zip(back, given))


def test_memory_stays_flat_over_a_mixed_load(process_method):
    with WorkerPool(2, start_method=process_method, keep_alive=True) as pool:
        _mixed(pool, 12, 3 * MB)
        gc.collect()
        before = _memory(pool)
        _mixed(pool, 24, 3 * MB)
        gc.collect()
        # What leaked once a message would be some 200 MB by now.
        assert _memory(pool) - before < 32 * MB


def _shared_memory():
    """Bytes of memory that this process' shared memory files have."""
    total = 0
    for name in os.listdir("/proc/self/fd"):
        path = "/proc/self/fd/" + name
        if os.path.islink(path) and os.readlink(path).startswith("/memfd:tercio"):
            total += os.stat(path).st_blocks * 512
    return total


def test_memory_is_given_back_when_nothing_large_moves(process_method):
    given = [np.full(8 * MB, float(i)) for i in range(6)]  # 64 MB each
    kept = 3 * 64 * MB + 16 * MB  # the parent and two workers keep 64 MB each, and there are rings
    with WorkerPool(2, start_method=process_method, keep_alive=True) as pool:
        for late in (False, True):
            back = pool.map(tasks.array_set_first, given, chunk_size=1, concatenate_numpy_output=False)
            full = _shared_memory()
            assert full > 6 * 64 * MB
            # Results may be let go long after they came, when all the rest has been given back.
            while late and _shared_memory() > (6 + 1) * 64 * MB + 16 * MB:
                pass
            del back
            gc.collect()
            while _shared_memory() > kept:
                pass


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(os.environ.get("TERCIO_LONG") != "1", reason="long: TERCIO_LONG=1 runs it")
def test_memory_stays_flat_for_long(process_method):
    with WorkerPool(2, start_method=process_method, keep_alive=True) as pool:
        _mixed(pool, 20, 256 * MB)
        gc.collect()
        before = _memory(pool)
        _mixed(pool, 200, 256 * MB)
        gc.collect()
        assert _memory(pool) - before < 300 * MB  # at most one of the largest more


def test_nothing_is_left_of_killed_workers(process_method):
    with WorkerPool(2, start_method=process_method, keep_alive=True) as pool:
        given = [(np.full(200_000, float(i)), i) for i in range(12)]
        back = pool.map(
            tasks.array_or_die, given, chunk_size=2, on_error="return", on_worker_death="retry", max_retries=0,
            concatenate_numpy_output=False,
        )  # fmt: skip
        for i, result in enumerate(back):
            if i in (3, 8):
                assert isinstance(result, RuntimeError)
            else:
                assert (result == i).all()
        assert (pool.apply(tasks.array_of, (5,)) == 5).all()
    assert not any(pid for pid in descendants(os.getpid()) if pid in {worker["pid"] for worker in pool.stats()})


def test_pandas(start_method):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": np.arange(20_000.0), "b": ["x", "y"] * 10_000})
    with WorkerPool(2, start_method=start_method) as pool:
        for back in pool.map(tasks.identity, [(frame,)] * 3, chunk_size=1):
            pandas.testing.assert_frame_equal(back, frame)


def test_pyarrow(start_method):
    pyarrow = pytest.importorskip("pyarrow")
    table = pyarrow.table({"a": np.arange(20_000.0), "b": ["x", "y"] * 10_000})
    with WorkerPool(2, start_method=start_method) as pool:
        assert all(back.equals(table) for back in pool.map(tasks.identity, [(table,)] * 3, chunk_size=1))
