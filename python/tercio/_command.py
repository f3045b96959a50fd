"""The command line of a fresh interpreter like this one."""

from __future__ import annotations

import os
import sys

from tercio import _frozen
from tercio._modules import loaded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any


def executable() -> str:
    """The interpreter to start; honours ``multiprocessing.set_executable``."""
    spawn = loaded("multiprocessing.spawn")
    path = spawn.get_executable() if spawn is not None else sys.executable
    if not path:
        raise RuntimeError(
            "sys.executable is empty, so there is no interpreter to start workers with. "
            "Set it by multiprocessing.set_executable, or use start_method 'fork' or 'threading'"
        )
    return os.fsdecode(path)


def path_flags() -> list[str]:
    """Options by which another interpreter runs code from the same places as this one."""
    flags = sys.flags
    args = []
    if flags.isolated:
        args.append("-I")
    else:
        args += ["-E"] * flags.ignore_environment + ["-s"] * flags.no_user_site
        args += ["-P"] * bool(getattr(flags, "safe_path", False))
    return args + ["-S"] * flags.no_site


def interpreter_flags() -> list[str]:
    """Options that give another interpreter the settings of this one."""
    flags = sys.flags
    args = path_flags() + ["-B"] * flags.dont_write_bytecode
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


def path() -> list[str]:
    """The parent's ``sys.path``, with a name for the current folder; without it where the folder was removed."""
    entries = list(sys.path)
    if "" in entries:
        try:
            here = os.getcwd()
        except OSError:
            return [entry for entry in entries if entry != ""]
        entries = [here if entry == "" else entry for entry in entries]
    return entries


def command(become: str, *arguments: str, flags: Sequence[str]) -> list[str]:
    """Build the argv of a fresh process; see ``_start``.

    Parameters
    ----------
    become : str
        ``"worker"``, ``"server"``, ``"tracker"`` or ``"dashboard"``.
    *arguments : str
        Its arguments; the engine adds one behind them.
    flags : sequence of str
        The interpreter's options.
    """
    here, kind = os.path.split(os.path.abspath(__file__))
    script = os.path.join(here, "_start" + os.path.splitext(kind)[1])
    # The import system passes over entries of other types, and no folder's name holds a zero byte.
    entries = [str(entry) for entry in path() if isinstance(entry, str) and "\0" not in entry]
    return [executable(), *flags, script, become, str(len(entries)), *entries, *arguments]


def worker() -> dict[str, Any]:
    """How `_core.Pool` starts a worker; the engine adds an argument."""
    if _frozen.is_frozen():
        return _frozen.command("worker")
    return {"argv": command("worker", flags=interpreter_flags())}


def server(*arguments: str) -> dict[str, Any]:
    """How `_core.Server` starts a forkserver; the engine adds an argument."""
    if _frozen.is_frozen():
        return _frozen.command("server", *arguments)
    return {"argv": command("server", *arguments, flags=interpreter_flags())}
