"""`--mode=serve`: a page on an address of this machine to edit by hand, until somebody stops it."""

from __future__ import annotations

import contextlib
import importlib.util
import ipaddress
import os
import secrets
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from emsedit_jax.errors import InputError
from emsedit_jax.run.cli import INTERRUPTED
from emsedit_jax.run.command import Door
from emsedit_jax.run.prepare import say
from emsedit_jax.session.session import EditSession

NEEDS = ("starlette", "uvicorn")
MOST_TOLD = 20  # of what is not saved, line by line


def run(door: Door, path: Path, opened: Callable[[], EditSession]) -> None:
    """Serves the page until Ctrl-C or SIGTERM, and tells what is not saved then; a second Ctrl-C ends the process.

    Args:
      path: where the session is to be saved, or lies.
      opened: gives the session; called when everything else is in order.

    Raises InputError where the extra `serve` is missing, or the address cannot be had.
    """
    check_extra()
    from emsedit_jax.session import serve_app, serve_desk

    with bound(door) as listening:
        session = opened()
        desk = serve_desk.Desk(session, serve_desk.target_of(path))
        port, token = listening.getsockname()[1], door.token or secrets.token_urlsafe(32)
        say("model", f"{session.config.model.name_or_path}, {session.config.editor.name}")
        say("folder", f"{desk.path}: written when the page is asked to save")
        if not ipaddress.ip_address(listening.getsockname()[0]).is_loopback:
            say("open", f"{door.host} is reached from other machines, and nothing is encrypted: see docs/SERVE.md")
        say("page", f"http://{_name(door.host)}:{port}/?token={token}  (Ctrl-C stops)")
        try:
            _serve(serve_app.build(desk, token, door.host, port), listening)
            desk.close()
            _tell(desk.unsaved())
        except KeyboardInterrupt:  # a second one: what is being done would be waited for, but by this
            _tell(desk.unsaved())
            session.close()
            sys.stdout.flush()
            os._exit(INTERRUPTED)


def check_extra() -> None:
    """Raises InputError where a library of the extra `serve` is missing."""
    lacking = [name for name in NEEDS if importlib.util.find_spec(name) is None]
    if lacking:
        raise InputError(f"--mode=serve needs {' and '.join(lacking)}: pip install -e '.[serve]' in the clone.")


@contextlib.contextmanager
def bound(door: Door) -> Iterator[socket.socket]:
    """The socket at the address, so that nobody else takes it as the model is loaded; browsers that come early wait.

    Raises InputError where it cannot be had.
    """
    remedy = "name another with --port (0: one that is free), or another --host"
    with contextlib.ExitStack() as stack:
        try:
            family, kind, number, _, address = socket.getaddrinfo(door.host, door.port, type=socket.SOCK_STREAM)[0]
            made = stack.enter_context(socket.socket(family, kind, number))
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # also just after an earlier program
            made.bind(address)
            made.listen()
        except (OSError, UnicodeError) as error:
            why = (getattr(error, "strerror", None) or str(error)).lower()
            raise InputError(f"cannot serve at {door.host}, port {door.port}: {why}; {remedy}.") from error
        yield made


def _name(host: str) -> str:
    """As it stands in an address that can be opened here."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"[{host}]" if ":" in host else host


def _serve(app: Any, listening: socket.socket) -> None:
    """Answers requests in a thread of its own, until a signal comes to this one."""
    import uvicorn

    config = uvicorn.Config(
        app,
        loop="asyncio",
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,  # its own would close what others log to
        log_level="warning",
        access_log=False,  # the first address holds the token
        proxy_headers=False,
        server_header=False,
    )
    server, ended = uvicorn.Server(config), threading.Event()

    def serve() -> None:
        try:
            server.run([listening])
        finally:
            ended.set()

    with _heeded(server):
        threading.Thread(target=serve).start()
        ended.wait()  # not `join`: one that is interrupted takes the thread for dead


@contextlib.contextmanager
def _heeded(server: Any) -> Iterator[None]:
    """Inside the block Ctrl-C and SIGTERM let the server end; a second Ctrl-C raises KeyboardInterrupt.

    In a thread other than the main one nothing changes.
    """

    def stop(number: int, frame: object) -> None:
        if server.should_exit and number == signal.SIGINT:
            raise KeyboardInterrupt
        server.should_exit = True
        with contextlib.suppress(OSError):  # nobody may be there to read it; print is not for handlers
            os.write(1, b"stopping: what is being done is finished first; Ctrl-C again ends at once\n")

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def _tell(unsaved: list[str]) -> None:
    """Says what is gone with this program."""
    for words in unsaved[:MOST_TOLD]:
        say("unsaved", words)
    if len(unsaved) > MOST_TOLD:
        say("unsaved", f"and {len(unsaved) - MOST_TOLD} more")
    say("stopped", "what was not saved is gone" if unsaved else "nothing was left unsaved")
