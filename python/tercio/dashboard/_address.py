"""Where the dashboard is, and the token that lets a program write to it.

The address is an environment variable, so that workers of every start method, and programs that they run, inherit
it. The token isn't: it lies in a file that its owner alone can read.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

VARIABLE = "TERCIO_DASHBOARD"
BUFFER = 64 << 10  # bytes of a report that lie between its two ends; the system's own choice is megabytes of old news


def address() -> str:
    """What the environment says; empty: not connected."""
    return os.environ.get(VARIABLE, "")


def set_address(host: str, port: int) -> None:
    """Connect this process and all that it starts from now on."""
    os.environ[VARIABLE] = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def parse(text: str) -> tuple[str, int] | None:
    """Host and port; None for what is neither."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit():
        return None
    return host.strip("[]"), int(port)


def folder() -> Path:
    """The user's folder for tokens, made if need be. One that others could have prepared is refused."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and os.access(runtime, os.W_OK):
        path = Path(runtime) / "tercio"
    else:
        import tempfile

        path = Path(tempfile.gettempdir()) / f"tercio-{os.getuid()}"
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        pass
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise PermissionError(f"{path} should be a folder that you alone can use; remove it")
    return path


def token_file(port: int) -> Path:
    """The file of the server at a port."""
    return folder() / f"dashboard-{port}.token"


def write_token(port: int, token: str) -> Path:
    """Put a token where this user's programs find it. It is complete when it is there."""
    path = token_file(port)
    new = path.with_suffix(f".{os.getpid()}")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(token)
    new.replace(path)
    return path


def read_token(port: int) -> str:
    """The token for the server at a port; empty if this user has none."""
    try:
        return token_file(port).read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""
