"""Functions that look at the frame of their caller, such as ``eval``, as the function of a task.

The extension calls a task from C. Under ``threading`` no Python frame stands below that call, and under the other
methods a frame of this package does. So these functions are called by a line of Python that runs in an empty namespace,
a new one for each task.
"""

from __future__ import annotations

from tercio._modules import loaded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_LOOKING = {
    "builtins": ("eval", "exec", "dir", "vars", "globals", "locals", "breakpoint", "super"),
    "sys": ("_getframe", "_getframemodulename"),
    "inspect": ("currentframe", "stack"),
    "warnings": ("warn",),
}
_Function = type(lambda: None)

# By the time of the call all names are out of the namespace again, the builtins' too.
_CALL = compile('pop("function")(*pop("args"), **pop("kwargs", pop("pop", pop("__builtins__"))))', "<task>", "eval")


def framed(function: Any) -> Any:
    """A function that may be called from C: `function` itself, or one that puts a frame below it."""
    if type(function) is _Function and function.__module__ not in _LOOKING:
        return function
    bare: Any = function
    partial: Any = getattr(loaded("functools"), "partial", ())
    while isinstance(bare, partial):
        bare = bare.func
    for module, names in _LOOKING.items():
        there = loaded(module)
        if any(bare is getattr(there, name, framed) for name in names):
            return Framed(function, bare.__qualname__)
    return function


class Framed:
    """Calls a function from a namespace of its own. It goes to a worker by the function that it holds."""

    def __init__(self, func: Any, name: str) -> None:
        self.func = func
        self.__qualname__ = name  # for errors' texts

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        namespace: dict[str, Any] = {"function": self.func, "args": args, "kwargs": kwargs}
        namespace["pop"] = namespace.pop
        return eval(_CALL, namespace)
