"""Exceptions that pickle and load, though their args, attributes or repr don't show what they hold."""

from __future__ import annotations

import email.message
import io
import itertools
import urllib.error

COUNT = itertools.count()


class Opaque(Exception):
    """Has other args each time that it is made, and keeps what it holds in a slot."""

    __slots__ = ("_held",)

    def __new__(cls, *args):
        made = super().__new__(cls)
        made._held = None
        return made

    def __init__(self, held):
        super().__init__(*range(next(COUNT)))
        self._held = held

    def __reduce__(self):
        return Opaque, (self._held,)


class Changing(Exception):
    """Has other attributes each time that it is made."""

    def __init__(self, text):
        super().__init__(text)
        setattr(self, f"made_{id(self)}", text)

    def __reduce__(self):
        return Changing, self.args


class Slotted(Exception):
    """Keeps its code in a slot, which pickling by args leaves out."""

    __slots__ = ("code",)

    def __init__(self, code):
        super().__init__()
        self.code = code

    def __reduce__(self):
        return Slotted._bare, ()

    @classmethod
    def _bare(cls):
        return cls.__new__(cls)


class Refusing(Exception):
    """Fails when it is asked for what it hasn't, or for its text."""

    def __getattr__(self, name):
        return getattr(self, name + "_")

    def __repr__(self):
        raise LookupError("no repr")

    __str__ = __repr__


def http_error():
    headers = email.message.Message()
    headers["Retry-After"] = "3"
    return urllib.error.HTTPError("http://127.0.0.1/x", 404, "gone", headers, io.BytesIO(b"body"))


MADE = {
    "opaque": lambda: Opaque("inside"),
    "changing": lambda: Changing("text"),
    "slotted": lambda: Slotted(17),
    "refusing": lambda: Refusing("text"),
    "long": lambda: ValueError(10**6000),
    "nan": lambda: ValueError(float("nan")),
    "http": http_error,
    "import": lambda: ImportError("no module", name="missing", path="/nowhere"),
    "unicode": lambda: UnicodeEncodeError("ascii", "é", 0, 1, "ordinal not in range"),
}


def raise_kind(kind):
    raise MADE[kind]()
