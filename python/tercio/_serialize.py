"""Functions, and the objects that all workers share, as bytes."""

from __future__ import annotations

from tercio import _names
from tercio._modules import loaded
from tercio._pickling import pickle

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import ModuleType
    from typing import Any

    from tercio._descriptors import Handed, Place

    CallTuple = tuple[Callable[..., Any], "Callable[..., Any] | None", "Callable[..., Any] | None"]

PROTOCOL = 5
_FRESH = ("spawn", "forkserver")  # workers that have to find everything by name
_ROLES = ("func", "worker_init", "worker_exit")


def require(serializer: str) -> ModuleType:
    """The module of a serializer.

    Raises
    ------
    ImportError
        If it isn't installed; names the extra that installs it.
    """
    if serializer == "pickle":
        return pickle
    from importlib import import_module

    try:
        return import_module(serializer)
    except ImportError as error:
        raise ImportError(
            f"serializer={serializer!r} needs the package {serializer}, which is not installed: "
            f"pip install tercio[{serializer}]"
        ) from error


def main_has_name() -> bool:
    """Whether a fresh worker can run this program's main module, and so find by name what it defines."""
    from tercio._main import describe

    return bool(describe())


def _plain(obj: object, buffers: list[Any]) -> bytes:
    return pickle.dumps(obj, protocol=PROTOCOL, buffer_callback=_keep(buffers))


def _keep(buffers: list[Any]) -> Callable[[pickle.PickleBuffer], bool]:
    def keep(buffer: pickle.PickleBuffer) -> bool:
        try:
            buffers.append(buffer.raw())
        except BufferError:  # not contiguous
            return True
        return False

    return keep


def _by_value(obj: object, buffers: list[Any]) -> bytes | None:
    """As cloudpickle has it; None if that isn't installed."""
    try:
        import cloudpickle
    except ImportError:
        return None
    data: bytes = cloudpickle.dumps(obj, protocol=PROTOCOL, buffer_callback=_keep(buffers))
    return data


def dump_call(call: CallTuple, serializer: str, method: str) -> list[Any]:
    """Pack a function with its init and exit functions.

    Parameters
    ----------
    call : tuple
        ``(func, worker_init, worker_exit)``.
    serializer : str
        The pool's.
    method : str
        The start method of the workers that shall load it.

    Returns
    -------
    list of bytes-like
        The names, or the pickle and its out-of-band buffers.

    Raises
    ------
    TypeError or pickle.PicklingError
        If it can't be packed; names the function and a cure.
    """
    buffers: list[Any] = []
    if serializer == "dill":
        try:
            return [require("dill").dumps(call, protocol=PROTOCOL)]
        except Exception as error:
            raise _cannot_send(call, serializer, error) from error
    # What was typed into a nameless main module is known there by name only to who was forked after it.
    if serializer == "cloudpickle" or (not main_has_name() and (method in _FRESH or not _all_elsewhere(call))):
        try:
            data = _by_value(call, buffers)
        except Exception as error:
            raise _cannot_send(call, "cloudpickle", error) from error
        if data is not None:
            return [data, *buffers]
        if method in _FRESH:
            _refuse_nameless(call)
    elif serializer == "pickle":
        named = _names.dump(call)
        if named is not None:
            return [named]
    try:
        return [_plain(call, buffers), *buffers]
    except Exception as error:
        buffers = []
        try:
            data = _by_value(call, buffers)
        except Exception:
            data = None
        if data is not None:
            return [data, *buffers]
        raise _cannot_send(call, serializer, error) from error


def load_call(parts: Sequence[Any], serializer: str) -> CallTuple:
    """What ``dump_call`` packed, if it isn't names; see ``_names.load_call``."""
    head, buffers = parts[0], parts[1:]
    if serializer == "dill":
        dill_call: CallTuple = require("dill").loads(head)
        return dill_call
    call: CallTuple = pickle.loads(head, buffers=buffers)
    return call


def can_dump(call: CallTuple, serializer: str, method: str) -> bool:
    """Whether workers that run already could be sent this."""
    if method == "fork" and not main_has_name() and not _all_elsewhere(call):
        # A forked worker has what was typed in before the fork, and which of it that is can't be told by name.
        try:
            return _by_value(call, []) is not None
        except Exception:
            return False
    try:
        dump_call(call, serializer, method)
    except Exception:
        return False
    return True


def _all_elsewhere(call: CallTuple) -> bool:
    return all(getattr(function, "__module__", None) != "__main__" for function in call if function is not None)


def _refuse_nameless(call: CallTuple) -> None:
    for role, function in zip(_ROLES, call):
        if function is not None and getattr(function, "__module__", None) == "__main__":
            raise pickle.PicklingError(
                f"{role} {_name(function)} lives in an interactive or nameless __main__, where a fresh worker can't "
                "look it up. Install cloudpickle (pip install tercio[cloudpickle]), move it to a module, "
                "or use start_method 'fork' or 'threading'"
            )


def _cannot_send(call: CallTuple, serializer: str, original: Exception) -> Exception:
    from tercio import _errors

    for role, function in zip(_ROLES, call):
        if function is None:
            continue
        try:
            require(serializer).dumps(function)
        except Exception as error:
            return _errors.not_picklable(role, function, None, error)
    return _errors.not_picklable("func", call[0], None, original)


def _name(function: object) -> str:
    return str(getattr(function, "__qualname__", None) or repr(function))


# ---- Shared objects ---------------------------------------------------------------------------------------------


def dump_shared(obj: object, serializer: str, method: str, handed: Handed) -> list[Any]:
    """Pack shared objects for fresh workers.

    Parameters
    ----------
    obj : object
        The pool's shared objects.
    serializer : str
        The pool's; it is used where pickle doesn't do.
    method : str
        The start method, for error texts.
    handed : Handed
        Where open files that it holds are noted.

    Returns
    -------
    list of bytes-like
        The pickle, then its buffers, which the workers will share.

    Raises
    ------
    TypeError or pickle.PicklingError
        If it can't be packed.
    RuntimeError
        If it holds synchronisation objects that were made for another start method.
    """
    import io

    from tercio import _errors

    buffers: list[Any] = []
    file = io.BytesIO()
    by_value = serializer == "cloudpickle" or (serializer == "pickle" and not main_has_name())
    pickler = _pickler(file, buffers, by_value, method)
    with _Spawning(handed):
        try:
            pickler.dump(obj)
        except Exception as error:
            if isinstance(error, RuntimeError) and not isinstance(error, RecursionError):
                raise  # its text names what is wrong: it's ours or multiprocessing's
            if serializer != "dill":
                raise _errors.not_picklable("shared_objects", None, None, error) from error
            try:
                return [require("dill").dumps(obj, protocol=PROTOCOL)]
            except Exception as second:
                raise _errors.not_picklable("shared_objects", None, None, second) from second
    return [file.getvalue(), *buffers]


def load_shared(parts: Sequence[Any], serializer: str) -> Any:
    """What ``dump_shared`` packed; arrays in it lie in the buffers that all workers share, copied where written."""
    if serializer == "dill":
        return require("dill").loads(parts[0], buffers=parts[1:])
    return pickle.loads(parts[0], buffers=parts[1:])


def _pickler(file: Any, buffers: list[Any], by_value: bool, method: str) -> pickle.Pickler:
    kind: Any = pickle.Pickler
    if by_value:
        try:
            import cloudpickle
        except ImportError:
            pass
        else:
            kind = cloudpickle.Pickler
    table = _reducers(kind, method)
    if table is not None:
        # In the type, not set later: where a type has a table of its own, one that its object is given isn't looked at.
        kind = type("Pickler", (kind,), {"dispatch_table": table})
    made: pickle.Pickler = kind(file, protocol=PROTOCOL, buffer_callback=_keep(buffers))
    return made


def _reducers(kind: Any, method: str) -> Any:
    """How multiprocessing's objects are handed over; None where nobody can have any."""
    reduction = loaded("multiprocessing.reduction")
    if reduction is None:
        return None
    import collections
    import copyreg

    table = collections.ChainMap({}, reduction.ForkingPickler._extra_reducers)
    table.maps.append(copyreg.dispatch_table if kind is pickle.Pickler else kind.dispatch_table)
    synchronize = loaded("multiprocessing.synchronize")
    if synchronize is not None:

        def reduce_lock(lock: Any) -> Any:
            _check_lock(lock, method)
            return lock.__reduce_ex__(PROTOCOL)

        for name in ("Lock", "RLock", "Semaphore", "BoundedSemaphore"):
            table[getattr(synchronize, name)] = reduce_lock
    return table


def _check_lock(lock: Any, method: str) -> None:
    # The fork context unlinks a semaphore's name at once, so nobody can open it by name later. Older versions of
    # Python don't notice and fail, or crash, in the worker.
    if getattr(lock, "_is_fork_ctx", None) or lock._semlock.name is None:
        kind = type(lock).__name__
        raise RuntimeError(
            f"shared_objects holds a {kind} made by multiprocessing's fork context, but the workers are started by "
            f"{method}. Make it by multiprocessing.get_context({method!r}).{kind}(), or pool.ctx.{kind}()"
        )


class _Spawning:
    """Tells multiprocessing, while it is pickled for a worker, that inheritance is going on in this thread.

    multiprocessing hands over descriptors through the object that it is told of. Ours notes them for the pool.
    """

    def __init__(self, handed: Handed) -> None:
        self.handed = handed
        self.context: Any = None

    def __enter__(self) -> None:
        self.context = loaded("multiprocessing.context")
        if self.context is not None:
            self.context.set_spawning_popen(self)

    def __exit__(self, *_: object) -> None:
        if self.context is not None:
            self.context.set_spawning_popen(None)

    def duplicate_for_child(self, fd: int) -> int:
        return fd

    def DupFd(self, fd: int) -> Place:
        from tercio._descriptors import Place

        return Place(self.handed.add(fd))
