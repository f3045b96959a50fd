"""The first code of a fresh process: it takes over the parent's path before it imports anything.

The interpreter runs this file as a script, not by ``-c`` or ``-m``: these put the current folder first on the path, and
Python 3.13 imports a module of the standard library before the first line of a ``-c``. A program that doesn't have the
current folder on its path must not run what lies there.

The arguments: what to become, the number of the path's entries, the entries, then the arguments of what it becomes.
"""

import sys

if __name__ == "__main__":
    # This file is no program's main module.
    __name__ = "tercio._start"
    sys.modules["__main__"] = type(sys)("__main__")
    sys.modules["__main__"].__dict__["__builtins__"] = __builtins__

    _count = int(sys.argv[2])
    _arguments = sys.argv[3 + _count :]
    _folder = sys.argv[0].rpartition("/")[0].rpartition("/")[0]
    sys.path[:] = sys.argv[3 : 3 + _count]
    try:
        import tercio  # noqa: F401
    except ImportError:
        # The parent found it through a path that it made up at run time. It goes last, as its neighbours are no part of
        # the parent's path.
        sys.path.append(_folder)

    if sys.argv[1] == "worker":
        from tercio import _core

        _core.worker_main(_arguments[0])
    elif sys.argv[1] == "server":
        from tercio import _forkserver

        _forkserver.main(_arguments)
    elif sys.argv[1] == "tracker":
        from tercio import _tracker

        _tracker.main(_arguments)
    elif sys.argv[1] == "dashboard":
        from tercio.dashboard import _server

        _server.main(_arguments)
