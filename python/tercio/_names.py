"""Functions that another process finds by name, as pickle finds them, without pickle.

A worker that is sent nothing else needs no pickle at all, whose import is a good part of a fresh worker's start.
"""

from __future__ import annotations

import marshal
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    CallTuple = tuple[Callable[..., Any], "Callable[..., Any] | None", "Callable[..., Any] | None"]

_TAG = b"n"  # a pickle of protocol 2 and later begins with another byte


def _function() -> None: ...


def dump(call: CallTuple) -> bytes | None:
    """The names of a function and its init and exit functions; None if one of them is not to be found by name."""
    names = []
    for function in call:
        found = () if function is None else _name(function)
        if found is None:
            return None
        names.append(found)
    return _TAG + marshal.dumps(tuple(names))


def _name(function: Any) -> tuple[str, str] | None:
    kind = type(function)
    if kind is type(len):
        # One that is bound to an object is that object's to pickle, and others may have a say in it.
        if type(function.__self__) is not type(sys) or _has_reducer(kind):
            return None
    elif kind is not type(_function):
        return None
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    if type(module) is not str or type(name) is not str:
        return None
    try:
        found: Any = sys.modules.get(module)
        for part in name.split("."):
            found = getattr(found, part)
    except Exception:
        return None  # pickle says why
    return (module, name) if found is function else None


def _has_reducer(kind: type) -> bool:
    copyreg = sys.modules.get("copyreg")
    return copyreg is not None and kind in copyreg.dispatch_table


def load_call(parts: Sequence[Any], serializer: str) -> CallTuple:
    """What ``_serialize.dump_call`` packed."""
    try:
        if parts[0][:1] == _TAG:
            call: Any = tuple(_find(*names) if names else None for names in marshal.loads(parts[0][1:]))
            return call  # type: ignore[no-any-return]
        from tercio import _serialize

        return _serialize.load_call(parts, serializer)
    except AttributeError as error:
        if "__main__" not in str(error) and "__mp_main__" not in str(error):
            raise
        raise AttributeError(
            f"{error}. A worker runs the main module without what stands under `if __name__ == '__main__':`, "
            "and knows nothing of what was typed in later. Define the function at the top of a module"
        ) from error


def _find(module: str, name: str) -> Any:
    __import__(module)
    found: Any = sys.modules[module]
    for part in name.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise AttributeError(f"Can't get attribute {name!r} on {sys.modules[module]!r}") from None
    return found
