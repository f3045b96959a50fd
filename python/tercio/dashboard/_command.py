"""How the server's process is started, by the shell command and by `start_dashboard`."""

from __future__ import annotations

import socket
import subprocess
import sys

from tercio.dashboard._address import BUFFER

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable

TEXT = "The dashboard needs packages that are not installed: pip install 'tercio[dashboard]'"


def require() -> None:
    """Raise an ImportError with the cure if the web packages are missing. Imports none of them."""
    from importlib.util import find_spec

    if not find_spec("starlette") or not find_spec("uvicorn"):
        raise ImportError(TEXT)


def listen(host: str, port_range: Iterable[int]) -> socket.socket:
    """A listening socket at the first free port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    tried = []
    reason: OSError | None = None
    for port in port_range:
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)  # its connections inherit it
            listener.bind((host, port))
            listener.listen(128)
            return listener
        except OSError as error:
            listener.close()
            tried.append(port)
            reason = error
    names = f"{tried[0]} to {tried[-1]}" if len(tried) > 1 else f"{tried}"
    raise OSError(
        f"no free port for the dashboard at {host}: tried {names} ({reason.strerror if reason else 'none'})"
    ) from reason


def spawn(port_range: Iterable[int]) -> tuple[subprocess.Popen[bytes], int]:
    """Start a server that ends when its standard input does. Returns when it answers."""
    from tercio import _frozen
    from tercio._command import command, path_flags

    if _frozen.is_frozen():
        raise RuntimeError(
            "This program is frozen, and has no interpreter that the dashboard could run in: start it by the shell "
            "command `tercio dashboard`, and call connect_to_dashboard"
        )
    with listen("127.0.0.1", port_range) as listener:
        port: int = listener.getsockname()[1]
        number = listener.fileno()
        process = subprocess.Popen(
            command("dashboard", str(number), flags=path_flags()),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=[number],
            start_new_session=True,  # Ctrl-C is the program's: what the page shows of it should still be read
        )
    assert process.stdout is not None
    if process.stdout.readline() != b"ready\n":
        code = process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        raise RuntimeError(f"the dashboard's process ended at its start (exit code {code})")
    return process, port


def run(options: argparse.Namespace) -> int:
    """The command `tercio dashboard`."""
    require()
    from tercio.dashboard import _server
    from tercio.dashboard._address import VARIABLE

    try:
        listener = listen(options.host, options.port_range)
    except OSError as error:
        print(f"tercio dashboard: {error}", file=sys.stderr)
        return 1
    port = listener.getsockname()[1]
    host = f"[{options.host}]" if ":" in options.host else options.host
    print(f"The dashboard is at http://{host}:{port}/ (Ctrl-C ends it). To connect a program:", flush=True)
    print(f"    export {VARIABLE}={host}:{port}", flush=True)
    _server.serve(listener, options.host)
    return 0
