"""Exceptions on their way home, and the ones that the pool makes itself.

A worker sends an exception as a small tree: how to make it again, the chain behind it, and the text that a person
wants to see. An exception that can't be made again faithfully arrives as CannotPickleExceptionError with the same text.
"""

from __future__ import annotations

import builtins
import pickle

from tercio._modules import loaded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from tercio.exception import WorkerDiedError

    Node = dict[str, Any]

ARGUMENT_LENGTH = 500  # characters of one argument's repr
ARGUMENTS_SHOWN = 50
CHAIN_LENGTH = 50  # exceptions followed through causes, contexts and groups

_KINDS = {"task": "task", "init": "worker_init", "exit": "worker_exit"}
_group_type: Any = getattr(builtins, "BaseExceptionGroup", None)


# ---- Text -------------------------------------------------------------------------------------------------------


def shorten(value: object) -> str:
    """A value's repr, cut at a sane length; never raises, and never builds the repr of a huge container."""
    import reprlib

    limits = reprlib.Repr()
    limits.maxlevel = 6
    limits.maxtuple = limits.maxlist = limits.maxset = limits.maxfrozenset = limits.maxdeque = 60
    limits.maxdict = limits.maxarray = 60
    limits.maxstring = limits.maxlong = limits.maxother = ARGUMENT_LENGTH
    try:
        text = limits.repr(value)
    except Exception as error:
        return f"<{type(value).__name__} whose repr failed with {type(error).__name__}>"
    if len(text) > ARGUMENT_LENGTH:
        text = f"{text[: ARGUMENT_LENGTH - 4]} ..."
    return text


def describe_arguments(args: Any, kwargs: Any) -> list[str]:
    """A line for each argument: ``Arg 0: 3``, ``Arg name: 'x'``."""
    named = [(str(i), value) for i, value in enumerate(args or ())]
    named += [(str(name), value) for name, value in (kwargs or {}).items()]
    lines = [f"Arg {name}: {shorten(value)}" for name, value in named[:ARGUMENTS_SHOWN]]
    if len(named) > ARGUMENTS_SHOWN:
        lines.append(f"... and {len(named) - ARGUMENTS_SHOWN} more arguments")
    return lines


def arguments_text(args: Any, kwargs: Any) -> str:
    """Arguments in one line, for insights."""
    return " | ".join(describe_arguments(args, kwargs))


def name_of(func: object) -> str:
    """How people call a function."""
    name = getattr(func, "__qualname__", None) or getattr(func, "__name__", None)
    if name is None:
        inner = getattr(func, "func", None)  # functools.partial
        return f"{type(func).__name__}({name_of(inner)})" if inner is not None else type(func).__name__
    return str(name)


def _remote_text(exc: BaseException, worker_id: int, args: Any, kwargs: Any, func: object) -> str:
    import traceback

    # traceback.format_exception may fail on an exception whose __str__ or __repr__ does; the worker must not.
    try:
        trace = "".join(traceback.format_exception(type(exc), exc, exc.__traceback__)).rstrip()
    except Exception:
        trace = "".join(traceback.format_tb(exc.__traceback__)) + type(exc).__name__
    lines = describe_arguments(args, kwargs)
    where = f"Worker-{worker_id}" + (f", in {name_of(func)}" if func is not None else "")
    head = f"{where}, called with:\n" + "\n".join(lines) if lines else f"{where}, called without arguments"
    return f"{head}\n{trace}"


# ---- From worker to parent --------------------------------------------------------------------------------------


def dump(exc: BaseException, worker_id: int, args: Any, kwargs: Any, func: object) -> bytes:
    """Pack an exception in the worker.

    Parameters
    ----------
    exc : BaseException
        What the task raised, with its traceback.
    worker_id : int
        The worker.
    args, kwargs : tuple, dict or None
        The task's own arguments.
    func : callable or None
        The function that raised.

    Returns
    -------
    bytes
        For ``load``. Never raises for an exception's sake.
    """
    text = _remote_text(exc, worker_id, args, kwargs, func)
    seen: dict[int, BaseException] = {}
    return pickle.dumps((_pack(exc, seen), text), protocol=5)


def load(data: Any) -> BaseException:
    """Unpack an exception in the parent; its ``__cause__`` holds the worker's traceback."""
    node, text = pickle.loads(data)
    exc = _unpack(node)
    return _with_text(exc, text)


def dress(exc: BaseException, worker_id: int, args: Any, kwargs: Any, func: object) -> BaseException:
    """What dump and load do together, for a worker that is a thread: the exception itself, its cause put before it."""
    from tercio.exception import RemoteTraceback

    if isinstance(exc.__cause__, RemoteTraceback):  # raised a second time
        return exc
    return _with_text(exc, _remote_text(exc, worker_id, args, kwargs, func))


def _with_text(exc: BaseException, text: str) -> BaseException:
    from tercio.exception import RemoteTraceback

    remote = RemoteTraceback(text)
    remote.__cause__ = exc.__cause__
    exc.__cause__ = remote
    return exc


def _pack(exc: BaseException, seen: dict[int, BaseException]) -> Node:
    seen[id(exc)] = exc
    node = _pack_self(exc, seen)
    notes = exc.__dict__.get("__notes__")  # a class may have a __getattr__ that fails
    if isinstance(notes, list) and all(isinstance(note, str) for note in notes):
        node["notes"] = list(notes)
    node["suppress"] = exc.__suppress_context__
    for name in ("__cause__", "__context__"):
        behind = getattr(exc, name)
        if behind is not None and id(behind) not in seen and len(seen) < CHAIN_LENGTH:
            node[name] = _pack(behind, seen)
    if exc.__cause__ is not None and exc.__cause__ is exc.__context__:
        node["same"] = True
    return node


def _pack_self(exc: BaseException, seen: dict[int, BaseException]) -> Node:
    if _group_type is not None and isinstance(exc, _group_type):
        group = _pack_group(exc, seen)
        if group is not None:
            return group
    loads: Node | None = None
    for how in ("pickle", "raw"):
        try:
            data = _dumps(exc if how == "pickle" else _raw(exc))
            copy: Any = _make(how, data)
        except Exception:
            continue
        if not isinstance(copy, BaseException):
            continue
        node = {"how": how, "data": data, **_lost_fields(exc, copy)}
        if _faithful(exc, copy):
            return node
        # Exceptions made in C may keep all that matters where neither args nor attributes show it.
        loads = loads or (node if how == "pickle" else None)
    if loads is not None:
        return loads
    try:
        text = repr(exc)
    except Exception:
        text = f"{type(exc).__name__} whose repr failed"
    return {"how": "none", "data": text}


def _pack_group(exc: Any, seen: dict[int, BaseException]) -> Node | None:
    try:
        data = _dumps((type(exc), exc.message, _attributes(exc)))
        pickle.loads(data)
    except Exception:
        return None
    return {"how": "group", "data": data, "members": [_pack(member, seen) for member in exc.exceptions]}


def _dumps(obj: object) -> bytes:
    try:
        return pickle.dumps(obj, protocol=5)
    except Exception:
        # A program that sends functions by value has classes to send by value too.
        for name in ("cloudpickle", "dill"):
            module = loaded(name)
            if module is not None:
                data: bytes = module.dumps(obj)
                return data
        raise


def _attributes(exc: BaseException) -> dict[str, Any]:
    return {name: value for name, value in exc.__dict__.items() if name != "__notes__"}


def _raw(exc: BaseException) -> tuple[Any, ...]:
    """Class, base's constructor arguments, args and attributes: what doesn't need the class's own __init__."""
    base = _builtin_base(type(exc))
    reduced = base.__reduce__(exc)
    return type(exc), reduced[1], exc.args, _attributes(exc)


def _builtin_base(kind: type[BaseException]) -> type[BaseException]:
    return next(base for base in kind.__mro__ if base.__module__ == "builtins")


def _make(how: str, data: Any) -> BaseException:
    exc: BaseException
    if how == "pickle":
        exc = pickle.loads(data)
        return exc
    kind, made_from, args, attributes = pickle.loads(data)
    base = _builtin_base(kind)
    exc = base.__new__(kind, *made_from)
    base.__init__(exc, *made_from)  # OSError and its like set their fields here
    exc.args = args
    exc.__dict__.update(attributes)
    return exc


def _fields(kind: type[BaseException]) -> list[str]:
    """Names of the members that instances keep outside of their ``__dict__``: those of built-in classes, and slots."""
    import types

    names = []
    for base in kind.__mro__:
        for name, member in vars(base).items():
            # An AttributeError's `obj` is whatever was looked at, and may be anything.
            is_ours = isinstance(member, types.MemberDescriptorType) and not name.startswith("__") and name != "obj"
            if is_ours and name not in names:
                names.append(name)
    return names


def _lost_fields(exc: BaseException, copy: BaseException) -> Node:
    """What the copy has not got of the fields, pickled one by one, as far as each can be."""
    lost = {}
    for name in _fields(type(exc)):
        try:
            mine = getattr(exc, name)
            theirs = getattr(copy, name, None)
            if mine is None or (type(mine) is type(theirs) and _plain(mine) == _plain(theirs)):
                continue
            data = _dumps(mine)
            pickle.loads(data)
            lost[name] = data
        except Exception:
            continue
    return {"fields": lost} if lost else {}


def _faithful(exc: BaseException, copy: BaseException) -> bool:
    mine, theirs = type(exc), type(copy)
    # A class that travels by value is another one where it arrives.
    if mine is not theirs and (mine.__module__, mine.__qualname__) != (theirs.__module__, theirs.__qualname__):
        return False
    try:
        if len(copy.args) != len(exc.args) or set(_attributes(copy)) != set(_attributes(exc)):
            return False
        return all(
            type(mine) is type(theirs) and (_plain(mine) == _plain(theirs)) for mine, theirs in zip(exc.args, copy.args)
        )
    except Exception:
        return False


def _plain(value: object) -> object:
    """What stands for a value in a comparison: itself where it is plain, else its class: arrays give no truth value."""
    if isinstance(value, float):
        return repr(value)  # of two NaNs, too
    return value if isinstance(value, (str, int, bytes, type(None))) else type(value).__name__


def _unpack(node: Node) -> BaseException:
    how = node["how"]
    exc: BaseException
    try:
        if how == "none":
            exc = _cannot_pickle(node["data"])
        elif how == "group":
            kind, message, attributes = pickle.loads(node["data"])
            members = [_unpack(member) for member in node["members"]]
            exc = kind.__new__(kind, message, members)
            exc.__dict__.update(attributes)
        else:
            exc = _make(how, node["data"])
            for name, data in node.get("fields", {}).items():
                setattr(exc, name, pickle.loads(data))
    except Exception as error:
        # The class is known in the worker alone.
        exc = _cannot_pickle(f"an exception that can't be loaded here: {error!r}")
    if "notes" in node:
        exc.__notes__ = list(node["notes"])  # type: ignore[attr-defined]
    context, cause = node.get("__context__"), node.get("__cause__")
    if cause is not None:
        exc.__cause__ = _unpack(cause)
    if context is not None:
        exc.__context__ = _unpack(context)
    elif node.get("same"):
        exc.__context__ = exc.__cause__
    exc.__suppress_context__ = node["suppress"]
    return exc


def _cannot_pickle(text: str) -> BaseException:
    from tercio.exception import CannotPickleExceptionError

    return CannotPickleExceptionError(text)


# ---- The pool's own ---------------------------------------------------------------------------------------------


def not_started(text: str) -> Exception:
    """A fresh process ended before it was a worker."""
    from tercio import _frozen

    return RuntimeError(f"{text}. {_frozen.CURE}" if _frozen.is_frozen() else text)


def died(
    *,
    worker_id: int,
    pid: int,
    signal: int | None = None,
    exit_code: int | None = None,
    peak_rss: int = 0,
    out_of_memory: bool | None = None,
    args: Any = None,
    kwargs: Any = None,
    func: object = None,
) -> WorkerDiedError:
    """The error of the task that a worker was running when it died.

    Parameters
    ----------
    worker_id, pid : int
        The worker and its process id.
    signal : int or None
        The signal that killed it; None or 0: none, or unknown.
    exit_code : int or None
        Its exit code; None or -1: a signal, or unknown.
    peak_rss : int
        Most memory it held, bytes; 0: unknown.
    out_of_memory : bool or None
        True: the engine knows that the kernel killed it for memory. Else the kernel's counters are asked.
    args, kwargs, func
        The task.
    """
    from tercio import _postmortem
    from tercio.exception import WorkerDiedError, signal_name

    signal = signal or None
    exit_code = None if signal is not None or exit_code is None or exit_code < 0 else exit_code
    doubt = ""
    if not out_of_memory:
        out_of_memory, doubt = _postmortem.out_of_memory(signal, exit_code)
    stack = _postmortem.stack(pid)
    if signal is not None:
        how = f"was killed by {signal_name(signal)}"
        if out_of_memory:
            how += " because memory ran out"
        elif doubt:
            how += f" (perhaps because memory ran out: {doubt})"
    elif exit_code is not None:
        how = f"was killed or left by itself: it ended with exit code {exit_code}"
    else:
        how = "was killed, and the cause is unknown"
    text = f"Worker-{worker_id} {how} (pid {pid}"
    if peak_rss:
        text += f", peak memory {peak_rss / 2**20:.0f} MiB"
    text += ")"
    if not pid:
        text = f"The thread of Worker-{worker_id} was ended (by pthread_exit, or cancelled)"
    if func is not None:
        text += f" while it ran {name_of(func)}"
    lines = describe_arguments(args, kwargs)
    if lines:
        text += " with:\n" + "\n".join(lines)
    if stack:
        text += "\n" + stack
    return WorkerDiedError(
        text,
        worker_id=worker_id,
        pid=pid,
        signal=signal,
        exit_code=exit_code,
        args_repr="\n".join(lines),
        peak_rss=peak_rss,
        stack=stack,
        out_of_memory=out_of_memory,
    )


def timeout_class() -> Any:
    """The package's TimeoutError."""
    from tercio.exception import TimeoutError as timeout_error

    return timeout_error


def timed_out(worker_id: int, kind: str, limit: float) -> BaseException:
    """The error of a task (`kind` ``task``, ``init`` or ``exit``) that ran longer than `limit` seconds."""
    what = _KINDS.get(kind, kind)
    shown = int(limit) if limit == int(limit) else limit
    exc: BaseException = timeout_class()(f"Worker-{worker_id} {what} timed out (timeout={shown})")
    return exc


def not_picklable(what: str, func: object, index: int | None, original: BaseException) -> Exception:
    """The error of something that can't be sent.

    Parameters
    ----------
    what : str
        ``"argument"``, ``"result"``, ``"func"``, ``"worker_init"``, ``"worker_exit"`` or ``"shared_objects"``.
    func : callable or None
        The function it belongs to, or that it is.
    index : int or None
        Number of the task, from 0.
    original : BaseException
        What the serializer said.
    """
    name = name_of(func) if func is not None else None
    if what in ("func", "worker_init", "worker_exit"):
        subject = f"{what} {name} can't be pickled"
        cure = (
            ". Define it at the top of a module, install cloudpickle (pip install tercio[cloudpickle]), or use "
            "start_method 'fork' or 'threading'"
        )
    elif what == "shared_objects":
        subject, cure = "shared_objects can't be pickled for fresh workers", ""
    else:
        which = f" of task {index}" if index is not None and index >= 0 else ""
        subject, cure = f"The {what}{which} of {name} can't be pickled", ""
        if name is None:
            subject = f"The {what}{which} can't be pickled"
    kind = pickle.PicklingError if isinstance(original, (pickle.PicklingError, AttributeError)) else TypeError
    exc: Exception = kind(f"{subject}: {type(original).__name__}: {original}{cure}")
    exc.__cause__ = original
    return exc
