"""One contender that starts workers, in a small program of its own.

What a start costs depends on who starts: a fork copies the tables of all memory, and fresh workers run the main
module. So these contenders run in a program that has imported what it needs and nothing else, whose main module is
this one, and whose size is said.

    alone.py life WHO METHOD TIMES MB
    alone.py replacement WHO METHOD TASKS BUSY
    alone.py shared WHO METHOD MB

Prints JSON. Whatever it imports it imports in functions: fresh workers run this module too.
"""

import sys
import time


def life(who, method, times, megabytes):
    """Start two workers, run two tasks, end: once to get warm, then so many times."""
    open_it = contender(who, method)

    def once():
        with open_it() as call:
            return list(call(abs, [-1, -2], 1))

    if who == "bare":
        once = open_it
    once()
    ballast = grown_to(int(megabytes))
    seconds, before = [], used()
    for _ in range(int(times)):
        start = time.perf_counter()
        result = once()
        seconds.append(time.perf_counter() - start)
        if result != [1, 2]:
            raise ValueError(f"wrong: {result}")
    cpu = None if method == "forkserver" else (used() - before) / len(seconds)  # a server's children are not ours
    del ballast
    return {"seconds": seconds, "cpu": cpu}


def replacement(who, method, n, busy):
    """Each worker runs one task, while this thread is busy with something else."""
    import tasks

    n = int(n)
    ours = who == "tercio"

    def work(n):
        if ours or who == "mpire":
            if ours:
                from tercio import WorkerPool
            else:
                from mpire import WorkerPool
            with WorkerPool(2, start_method=method) as pool:
                return pool.map(tasks.identity, range(n), chunk_size=1, worker_lifespan=1)
        import multiprocessing

        with multiprocessing.get_context(method).Pool(2, maxtasksperchild=1) as pool:
            return pool.map(tasks.identity, range(n), chunksize=1)

    def beside():
        import threading

        found = []
        thread = threading.Thread(target=lambda: found.append(work(n)))
        thread.start()
        while thread.is_alive():
            if busy == "python":
                tasks.spin(1000)
            else:
                sum(range(2_000_000))  # some 20 ms without a chance for another thread
        thread.join()
        return found[0]

    work(2)
    before, start = used(), time.perf_counter()
    result = work(n) if busy == "no" else beside()
    seconds = time.perf_counter() - start
    if list(result) != list(range(n)):
        raise ValueError(f"wrong: {result}")
    return {"seconds": [seconds / n], "cpu": (used() - before) / n}


def shared(who, method, megabytes):
    """From nothing to the first results of both workers; then the workers' private memory."""
    import os

    import numpy as np
    import tasks
    from harness import descendants, private

    n = 100 if megabytes == "0" else int(megabytes) << 17
    array = np.arange(1, n + 1, dtype=np.float64)
    if who == "pool":
        options, func = {"initializer": tasks.keep_shared, "initargs": (array,)}, tasks.first_of_kept
    else:
        options, func = {"shared_objects": array}, tasks.first_of
    if method == "forkserver":  # servers run before anything is timed
        with contender(who, method)() as call:
            call(abs, [-1], 1)
    before = descendants(os.getpid())
    start = time.perf_counter()
    with contender(who, method, **options)() as call:
        result = list(call(func, [0, n - 1], 1))
        seconds = time.perf_counter() - start
        workers = sorted(descendants(os.getpid()) - before, key=private)[-2:]
        memory = max((private(pid) for pid in workers), default=0)
    if result != [1.0, float(n)]:
        raise ValueError(f"wrong: {result}")
    return {"seconds": [seconds], "cpu": None, "private": memory}


def contender(who, method, **options):
    """What opens it, as peers.py has it; or a bare interpreter."""
    if who == "bare":
        import subprocess

        def bare():
            subprocess.run([sys.executable, "-c", "pass"], check=True)
            return [1, 2]

        return bare
    import peers

    if who == "threads":
        return peers.threads
    return lambda: getattr(peers, who)(method, **options)


def grown_to(megabytes):
    """Memory that is really there, so that all of it together is as much."""
    with open("/proc/self/statm") as file:
        pages = int(file.read().split()[1])
    return bytearray(b"\1") * max(0, (megabytes << 20) - (pages << 12))


def used():
    """CPU seconds of this process and of children that have ended."""
    import resource

    all_of_them = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in all_of_them)


def main():
    """See the module."""
    import json
    import warnings

    warnings.simplefilter("ignore")  # some fork beside threads here; that is the point
    what, *arguments = sys.argv[1:]
    print(json.dumps({"life": life, "replacement": replacement, "shared": shared}[what](*arguments)))


if __name__ == "__main__":
    main()
