"""The program's main module: how a fresh worker comes by it, and what its names mean in both processes.

The parent says how it was started (`describe`); a fresh worker runs it once more under the name ``__mp_main__``
(`run`), as the standard library's workers do, so that what it defines is found by name.
"""

from __future__ import annotations

import marshal
import os
import sys

from tercio import _frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType, ModuleType
    from typing import Any

# ---- In the parent ----------------------------------------------------------------------------------------------


class _Program(type(sys)):  # type: ignore[misc]
    """A main module whose names live in a dict that a tool made for them."""

    def __init__(self, names: dict[str, Any]) -> None:
        super().__init__("__main__")
        about = ("__doc__", "__file__", "__loader__", "__package__", "__spec__")
        self.__dict__.update({name: names[name] for name in about if name in names}, _names=names)

    def __getattr__(self, name: str) -> Any:
        try:
            return self._names[name]
        except KeyError:
            raise AttributeError(f"module '__main__' has no attribute {name!r}") from None


_replaced: ModuleType | None = None  # by a _Program


def names() -> dict[str, Any]:
    """What the main module defines."""
    main = sys.modules.get("__main__")
    found: dict[str, Any] = {} if main is None else main._names if isinstance(main, _Program) else main.__dict__
    return found


def adopt(function: Any) -> None:
    """Have ``sys.modules["__main__"]`` be the program, also where a tool runs it in a dict of the tool's own.

    ``python -m cProfile`` (until Python 3.11) and ``-m trace``, ``kernprof`` and ``runpy.run_module`` do that. Nothing
    that such a program defines can be pickled otherwise, since pickle looks for it in the tool's module.

    Parameters
    ----------
    function : callable
        What the workers shall run. Its names are the program's if it was defined in a main module, and else those of
        the innermost frame of one.
    """
    global _replaced
    found = getattr(function, "__globals__", None)
    if not _is_main(found):
        frame: Any = sys._getframe(1)
        while frame is not None and not _is_main(frame.f_globals):
            frame = frame.f_back
        found = None if frame is None else frame.f_globals
    main = sys.modules.get("__main__")
    if found is None or main is None or found is names():
        return
    if _replaced is not None and found is _replaced.__dict__:
        sys.modules["__main__"] = _replaced
        return
    path = found.get("__file__")
    # A copy of the main module's own names, such as doctest makes, is no other program.
    if isinstance(path, str) and path != getattr(main, "__file__", None):
        if not isinstance(main, _Program):
            _replaced = main
        sys.modules["__main__"] = _Program(found)


def _is_main(names: Any) -> bool:
    return isinstance(names, dict) and names.get("__name__") == "__main__"


def alias() -> None:
    """Let ``__mp_main__`` mean this program's main module.

    A fresh worker runs the main module under that name, so what it pickles by name asks for it here. The newest pool
    decides: a notebook or `runpy` runs one main module after another.
    """
    main = sys.modules.get("__main__")
    if main is not None:
        sys.modules["__mp_main__"] = main
        if hasattr(main, "__compiled__"):
            sys.modules["__parents_main__"] = main  # the name under which Nuitka runs it in a fresh process


def describe() -> dict[str, Any]:
    """How a fresh worker can run this program's main module, and so find by name what it defines; empty: it can't.

    Returns
    -------
    dict
        One of ``main_name`` (of a module), ``main_place`` (a folder or archive with a ``__main__`` in it),
        ``main_path`` (a file) and ``main_frozen`` (a fresh process has run it when it comes to us); or nothing.
    """
    main = sys.modules.get("__main__")
    if _frozen.is_frozen():
        return {"main_frozen": True}
    if isinstance(main, _Unrun):
        return dict(main._data)
    spec = getattr(main, "__spec__", None)
    if spec is not None and spec.loader is not None:  # cProfile makes one without
        if spec.name != "__main__" and not spec.name.endswith(".__main__"):
            return {"main_name": spec.name}
        if not _is_guarded(spec):
            return {}  # to run it again would be to start the program again
        return {"main_place": os.path.dirname(spec.origin)} if spec.name == "__main__" else {"main_name": spec.name}
    path = getattr(main, "__file__", None)
    if path is None or not os.path.exists(path):
        return {}
    return {"main_path": os.path.abspath(path)}


_guarded: dict[tuple[str, str], bool] = {}


def _is_guarded(spec: Any) -> bool:
    """Whether a package's or an archive's ``__main__`` asks for its name, as few of them do."""
    if not getattr(spec, "has_location", False) or spec.origin is None:
        return False
    key = (spec.name, spec.origin)
    if key not in _guarded:
        try:
            code = spec.loader.get_code(spec.name)
            _guarded[key] = "__name__" in code.co_names and "__main__" in code.co_consts
        except Exception:
            _guarded[key] = False
    return _guarded[key]


_compiled: dict[str, tuple[tuple[int, int], bytes]] = {}


def compiled(path: str) -> bytes | None:
    """The main module, compiled once here and not in each worker; None where a worker has to see to it itself."""
    from tercio._command import executable

    if executable() != sys.executable or not _is_source(path):
        return None
    try:
        about = os.stat(path)
        when = (about.st_mtime_ns, about.st_size)
        known = _compiled.get(path)
        if known is None or known[0] != when:
            known = _compiled[path] = (when, marshal.dumps(_compile(path)))
        return known[1]
    except Exception:
        return None  # the worker's own try tells why


def _is_source(path: str) -> bool:
    # Neither a folder nor an archive is code; there is a __main__ in them.
    return not os.path.isdir(path) and (path.endswith((".py", ".pyw", ".pyc")) or not _is_archive(path))


def _is_archive(path: str) -> bool:
    import zipfile

    return zipfile.is_zipfile(path)


def _compile(path: str) -> CodeType:
    import io

    with io.open_code(path) as file:
        data = file.read()
    if path.endswith(".pyc") or data[2:4] == b"\r\n":  # Python runs what was compiled before under any name
        from importlib.util import MAGIC_NUMBER

        if data.startswith(MAGIC_NUMBER):
            code: CodeType = marshal.loads(data[16:])
            return code
    return compile(data, path, "exec", dont_inherit=True)  # this module's __future__ is not that one's


# ---- In a fresh worker ------------------------------------------------------------------------------------------


def key(data: dict[str, Any]) -> tuple[Any, ...]:
    """The part of `describe` that says which main module it is; all None: there is none to run."""
    return data.get("main_name"), data.get("main_place"), data.get("main_path")


class _Unrun(type(sys)):  # type: ignore[misc]
    """A main module that runs when it is first asked for a name."""

    def __init__(self, data: dict[str, Any]) -> None:
        super().__init__("__mp_main__")
        self.__dict__["_data"] = data

    def __getattr__(self, name: str) -> Any:
        data = None if name.startswith("__") else self.__dict__.pop("_data", None)
        if data is None:
            raise AttributeError(f"module '__mp_main__' has no attribute {name!r}")
        self.__class__ = type(sys)  # type: ignore[assignment]
        _fill(self, data)
        return getattr(self, name)


def run(data: dict[str, Any]) -> ModuleType:
    """Run what `describe` named, under the name ``__mp_main__``.

    The ``__main__`` of a package, a folder or an archive runs when something of it is asked for, and not before: often
    nothing is, and to find it may import much (under pytest, all of pytest).
    """
    name, place, _ = key(data)
    is_late = place is not None or (name is not None and name.endswith(".__main__"))
    module: ModuleType = _Unrun(data) if is_late else type(sys)("__mp_main__")
    # Before it runs: what it defines may be pickled, or ask for its module, meanwhile.
    sys.modules["__main__"] = sys.modules["__mp_main__"] = module
    if not is_late:
        _fill(module, data)
    return module


def _fill(module: ModuleType, data: dict[str, Any]) -> None:
    name, place, path = key(data)
    if path is not None and (data.get("main_code") is not None or _is_source(path)):
        code = marshal.loads(data["main_code"]) if data.get("main_code") is not None else _compile(path)
        about = {"__file__": path, "__cached__": None}
    else:
        spec = _find(name) if name is not None else _find_main(place or path)
        code = spec.loader.get_code(spec.name)
        if code is None:
            raise ImportError(f"The main module {spec.name} has no code that a worker could run")
        about = {"__file__": spec.origin, "__cached__": spec.cached, "__loader__": spec.loader, "__spec__": spec}
        about["__package__"] = spec.parent
    module.__dict__.update(about, __builtins__=__builtins__)
    exec(code, module.__dict__)


def _find(name: str) -> Any:
    from importlib.util import find_spec

    spec = find_spec(name)
    if spec is None or spec.loader is None:
        raise ImportError(f"No module named {name}, which is this program's main module")
    return spec


def _find_main(place: str) -> Any:
    from importlib.machinery import PathFinder

    spec = PathFinder.find_spec("__main__", [place])
    if spec is None or spec.loader is None:
        raise ImportError(f"There is no __main__ module in {place}")
    return spec
