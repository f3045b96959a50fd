"""The command line of a fresh interpreter like this one."""

from __future__ import annotations

import os
import sys

# The package's folder goes last on the path, and only if the interpreter doesn't find the package by itself: the
# parent may have found it through a path that it made up at run time.
_FIND = """\
import sys
try:
    import tercio
except ImportError:
    sys.path.append({folder!r})
"""
_WORKER = _FIND + "from tercio import _core\n_core.worker_main(sys.argv[-1])\n"
_SERVER = _FIND + "from tercio import _forkserver\n_forkserver.main(sys.argv[1:])\n"


def executable() -> str:
    """The interpreter to start; honours ``multiprocessing.set_executable``."""
    spawn = sys.modules.get("multiprocessing.spawn")
    path = spawn.get_executable() if spawn is not None else sys.executable
    if not path:
        raise RuntimeError(
            "sys.executable is empty, so there is no interpreter to start workers with. "
            "Set it by multiprocessing.set_executable, or use start_method 'fork' or 'threading'"
        )
    return os.fsdecode(path)


def interpreter_flags() -> list[str]:
    """Options that give another interpreter the settings of this one."""
    flags = sys.flags
    args = []
    if flags.isolated:
        args.append("-I")
    else:
        args += ["-E"] * flags.ignore_environment + ["-s"] * flags.no_user_site
        args += ["-P"] * bool(getattr(flags, "safe_path", False))
    args += ["-S"] * flags.no_site + ["-B"] * flags.dont_write_bytecode
    for letter, count in (
        ("O", flags.optimize),
        ("v", flags.verbose),
        ("b", flags.bytes_warning),
        ("d", flags.debug),
        ("q", flags.quiet),
    ):
        if count:
            args.append("-" + letter * count)
    options = dict(getattr(sys, "_xoptions", {}))
    dev = bool(options.pop("dev", False) or flags.dev_mode)
    if dev:
        args += ["-X", "dev"]
    args += [f"-W{option}" for option in sys.warnoptions if not (dev and option == "default")]
    for name, value in sorted(options.items()):
        if name not in ("importtime", "showrefcount"):  # those would print once more in each worker
            args += ["-X", name if value is True else f"{name}={value}"]
    return args


def _command(code: str, *arguments: str) -> list[str]:
    folder = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    return [executable(), *interpreter_flags(), "-c", code.format(folder=folder), *arguments]


def worker() -> list[str]:
    """Build the argv of a spawned worker; the engine adds an argument."""
    return _command(_WORKER)


def server(*arguments: str) -> list[str]:
    """Build the argv of a forkserver; the engine adds an argument."""
    return _command(_SERVER, *arguments)
