"""Who may ask the page for what: the token, the names it is reached by, and where a request comes from."""

from __future__ import annotations

import hmac
import ipaddress
import re
from collections.abc import Mapping

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
ANYWHERE = frozenset({"0.0.0.0", "::"})  # bound to all addresses of the machine
HEADERS = {  # of every answer: the page runs its own script alone, lies in no frame, and is kept nowhere
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",  # the first address holds the token
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


class Guard:
    """Lets through to `app` who knows the token and asks from the page itself."""

    def __init__(self, app: ASGIApp, token: str, host: str, cookie: str):
        """Use `serve_app.build`.

        Args:
          host: the address that is bound.
          cookie: its name; programs on several ports of one machine share their cookies.
        """
        self._app, self._token, self._cookie = app, token, cookie
        self._names, self._anywhere = LOOPBACK | {host.casefold()}, host in ANYWHERE

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise ValueError(f"the page has no {scope['type']}")
        request = Request(scope)
        invited = scope["path"] == "/" and self._is_token(request.query_params.get("token", ""))
        fault = self._fault(request, invited)
        answer: ASGIApp = self._app if not fault else _refusal(scope["path"], fault)

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                if invited and not fault:
                    headers.append("set-cookie", f"{self._cookie}={self._token}; HttpOnly; SameSite=Strict; Path=/")
            await send(message)

        await answer(scope, receive, sent)

    def _fault(self, request: Request, invited: bool) -> str:
        """What speaks against a request, in words; "" where nothing does."""
        hosts = request.headers.getlist("host")
        if len(hosts) != 1 or not self._is_ours(hosts[0]):
            return "this page answers to its own address alone: open the one that the program has printed."
        bearer = re.fullmatch(r"[Bb]earer +(\S+)", request.headers.get("authorization", ""))
        known = bearer is not None and self._is_token(bearer[1])
        if not (known or invited or self._is_token(request.cookies.get(self._cookie, ""))):
            return "the token is missing or wrong: open the address that the program has printed, with its token."
        if request.method not in ("GET", "HEAD") and not _is_from(request.headers, hosts[0], known):
            return "only the page itself, or a program that sends the token as `Authorization: Bearer`, may do this."
        return ""

    def _is_token(self, text: str) -> bool:
        return hmac.compare_digest(text.encode(), self._token.encode())

    def _is_ours(self, host: str) -> bool:
        """Whether a Host header names us: another name may be a stranger's that was pointed here (DNS rebinding).

        The port may be another, of a tunnel. Bound to all addresses every number will do: no name is looked up for it.
        """
        found = re.fullmatch(r"(?:\[([0-9a-f:.]+)\]|([0-9a-z.-]+))(?::[0-9]+)?", host.casefold())
        name = (found[1] or found[2]) if found else ""
        return name in self._names or (self._anywhere and _is_number(name))


def _is_from(headers: Mapping[str, str], host: str, known: bool) -> bool:
    """Whether the page itself asks: browsers say where from. Others must show the token in a header, not a cookie."""
    origin = headers.get("origin")
    return known if origin is None else origin in (f"http://{host}", f"https://{host}")


def _is_number(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _refusal(path: str, fault: str) -> Response:
    """What programs read, or people."""
    if path.startswith("/api/"):
        return JSONResponse({"error": fault}, 403)
    return PlainTextResponse(f"403: {fault}\n", 403)
