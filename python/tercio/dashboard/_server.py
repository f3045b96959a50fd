"""The dashboard's web server. Runs in a process of its own, and imports nothing of a program that reports to it.

A reader needs to reach the port, and to ask for it by a name that is ours (another site's page whose name was made
to point here has a different one). A program that reports needs the token.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import secrets
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from tercio.dashboard._address import write_token
from tercio.dashboard._runs import Page, Run, Runs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType
    from typing import Any

    from starlette.types import ASGIApp, Receive, Scope, Send

FILES = Path(__file__).parent / "page"
LONGEST_LINE = 4 << 20
LONGEST_QUESTION = 4096  # of a page: its key and a number
PAUSE = 0.2  # seconds between two messages to a page, so that a hundred runs cost it no more than one
MOST_A_SECOND = 200_000  # bytes to a page: hundreds of runs that all move are told of less often
WORKERS = b'{"workers":'  # what a report's line begins with when it says what workers do, and nothing else
HEADERS = (
    (
        b"content-security-policy",
        (
            b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
            b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        ),
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
)


class Guard:
    """Refuses requests for another host's name, and puts the headers on that keep the page to itself."""

    def __init__(self, app: ASGIApp, names: set[str]) -> None:
        self.app, self.names = app, names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        asked = dict(scope["headers"]).get(b"host", b"").decode("latin-1")
        if host_name(asked) not in self.names:
            await PlainTextResponse("This server has another name.\n", 421)(scope, receive, send)
            return

        async def with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                names = {name for name, _ in HEADERS}
                kept = [pair for pair in message["headers"] if pair[0].lower() not in names]
                message["headers"] = [*kept, *HEADERS]
            await send(message)

        await self.app(scope, receive, with_headers)


def host_name(asked: str) -> str:
    """The name in a Host header, without the port."""
    if asked.startswith("["):
        return asked[1:].partition("]")[0]
    return asked.partition(":")[0].lower()


def pause_after(length: int) -> float:
    """Seconds in which a page hears nothing after so many bytes."""
    return max(PAUSE, length / MOST_A_SECOND)


async def lines(request: Request) -> AsyncIterator[dict[str, Any]]:
    """The messages of a report, as they come. What workers do is handed on unread: see `Run`."""
    rest = b""
    async for block in request.stream():
        *whole, rest = (rest + block).split(b"\n")
        if len(rest) > LONGEST_LINE:
            raise ValueError("a line is too long")
        # When programs say more than this process can take in, it has to stay with what they say now.
        last = max((at for at, line in enumerate(whole) if line.startswith(WORKERS)), default=-1)
        for at, line in enumerate(whole):
            if line.startswith(WORKERS):
                if at == last:
                    yield {"workers": line}
                continue
            message = json.loads(line)
            if not isinstance(message, dict):
                raise ValueError("a line is not an object")
            yield message


def make_app(token: str, host: str) -> Starlette:
    """The application.

    Parameters
    ----------
    token : str
        What reporters have to know.
    host : str
        The address that is listened at.

    Returns
    -------
    Starlette
        The application; ``app.state.runs`` is what it knows, ``app.state.stop()`` ends all that goes on.
    """
    runs = Runs()
    reports: set[asyncio.Task[Any]] = set()  # those that are under way

    def stop() -> None:
        runs.close()
        for task in list(reports):
            task.cancel()

    async def report(request: Request) -> Response:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(given.encode(), token.encode()):
            return PlainTextResponse("The token is wrong.\n", 401)
        run: Run | None = None
        task = asyncio.current_task()
        assert task is not None
        reports.add(task)
        try:
            async for message in lines(request):
                if run is None:
                    start = message.get("start")
                    run = runs.begin(start if isinstance(start, dict) else {})
                runs.take(run, message)
        except ClientDisconnect:
            pass
        except asyncio.CancelledError:
            if not runs.is_over:
                raise
            return PlainTextResponse("The dashboard ends.\n", 503)
        except (ValueError, RecursionError) as error:
            return PlainTextResponse(f"{error}\n", 400)
        finally:
            reports.discard(task)
            if run is not None and not run.is_over:
                runs.lose(run)
        return Response(status_code=204)

    async def events(request: Request) -> Response:
        async def stream() -> AsyncIterator[str]:
            # A server that has much to read comes back to a page after hundreds of reports, so each wait is a delay:
            # there is one between a page's question and its answer.
            page = Page(runs)
            runs.pages.add(page)
            try:
                while (news := await page.news()) is not None:
                    text = f"data: {json.dumps(news, separators=(',', ':'))}\n\n"
                    yield text
                    page.rest(pause_after(len(text)))
            finally:
                page.close()
                runs.pages.discard(page)

        return StreamingResponse(stream(), media_type="text/event-stream")

    async def watch(request: Request) -> Response:
        body = b""
        async for block in request.stream():
            body += block
            if len(body) > LONGEST_QUESTION:
                return PlainTextResponse("That is too long.\n", 413)
        try:
            asked = json.loads(body)
            key, number = asked["page"], asked["run"]
        except (ValueError, KeyError, TypeError, RecursionError):
            return PlainTextResponse("That is no page and run.\n", 400)
        for page in runs.pages:
            if page.key == key:
                page.watch(number if isinstance(number, int) else None)
                return Response(status_code=204)
        return PlainTextResponse("There is no such page.\n", 404)

    async def state(request: Request) -> Response:
        return JSONResponse({"runs": [run.fields for run in runs.runs.values()]})

    def file(name: str, kind: str) -> Route:
        async def answer(request: Request) -> Response:
            return FileResponse(FILES / name, media_type=kind)

        return Route("/" if name == "index.html" else f"/{name}", answer)

    app = Starlette(
        routes=[
            file("index.html", "text/html; charset=utf-8"),
            file("app.js", "text/javascript; charset=utf-8"),
            file("style.css", "text/css; charset=utf-8"),
            file("icon.svg", "image/svg+xml"),
            Route("/api/events", events),
            Route("/api/watch", watch, methods=["POST"]),
            Route("/api/state", state),
            Route("/api/report", report, methods=["POST"]),
        ]
    )
    app.state.runs, app.state.stop = runs, stop
    app.add_middleware(Guard, names={"localhost", "127.0.0.1", "::1", host, socket.gethostname().lower()})
    return app


async def _serve(listener: socket.socket, host: str, owner: int | None) -> None:
    token = secrets.token_urlsafe(32)
    app = make_app(token, host)
    config = uvicorn.Config(app, log_level="error", lifespan="off", ws="none", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    stop_at_signal = server.handle_exit

    def stop(sig: int, frame: FrameType | None) -> None:
        app.state.stop()
        stop_at_signal(sig, frame)

    server.handle_exit = stop  # type: ignore[method-assign]
    path = write_token(listener.getsockname()[1], token)
    try:
        if owner is not None:
            loop = asyncio.get_running_loop()

            def owner_is_gone() -> None:
                loop.remove_reader(owner)
                app.state.stop()
                server.should_exit = True

            loop.add_reader(owner, owner_is_gone)
            sys.stdout.write("ready\n")
            sys.stdout.flush()
        await server.serve(sockets=[listener])
    finally:
        with contextlib.suppress(OSError):
            # Another server may have the port, and this file, by now.
            if path.read_text("ascii") == token:
                path.unlink()


def serve(listener: socket.socket, host: str, owner: int | None = None) -> None:
    """Serve until a signal, or until the descriptor `owner` becomes readable (its other end was closed)."""
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(listener, host, owner))


def main(arguments: Sequence[str]) -> None:
    """Serve on the descriptor that is named, until standard input ends."""
    serve(socket.socket(fileno=int(arguments[0])), "127.0.0.1", owner=0)
