"""The page as a web application: its files, and what it asks of the desk, as JSON."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from emsedit_jax.data.fields import kind as called
from emsedit_jax.errors import InputError, near
from emsedit_jax.run.export import FORMS
from emsedit_jax.session.serve_desk import Busy, Desk
from emsedit_jax.session.serve_guard import Guard

PAGE = Path(__file__).with_name("page")
FILES = {  # address -> file, what it is
    "/": ("index.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
MOST_BYTES = 1_000_000  # of a request
MOST_LETTERS = 4_000  # of a text in it
MOST_FACTS = 100  # of an edit
WHERE = ("", "over", "beside")


def build(desk: Desk, token: str, host: str, port: int) -> Guard:
    """The application, behind its guard; `host` and `port` are what is bound."""
    routes = [Route(address, functools.partial(_file, *file)) for address, file in FILES.items()]
    routes.append(Route("/api/state", functools.partial(_state, desk)))
    deeds = {"edit": _edit, "ask": _ask, "undo": _undo, "save": _save, "export": _export}
    for name, deed in deeds.items():
        routes.append(Route(f"/api/{name}", functools.partial(deed, desk), methods=["POST"]))
    told = {InputError: _wrong, Busy: _busy, HTTPException: _no_such, Exception: _failed}
    return Guard(Starlette(routes=routes, exception_handlers=told), token, host, f"emsedit-{port}")


# ---------------------------------------------------------------------------------------------- what is asked


async def _file(name: str, media_type: str, request: Request) -> Response:
    return Response((PAGE / name).read_bytes(), media_type=media_type)


async def _state(desk: Desk, request: Request) -> Response:
    return JSONResponse(desk.state)


async def _edit(desk: Desk, request: Request) -> Response:
    (facts,) = await _fields(request, facts=list)
    if not 0 < len(facts) <= MOST_FACTS:
        raise InputError(f"{len(facts)} facts: give 1 to {MOST_FACTS} at a time.")
    for place, fact in enumerate(facts):
        if not isinstance(fact, dict):
            raise InputError(f"facts row {place}: must be an object with 'prompt' and 'answer', not {called(fact)}.")
    await desk.do(lambda: desk.edit(facts), "an edit is being made")
    return JSONResponse(desk.state)


async def _ask(desk: Desk, request: Request) -> Response:
    (prompt,) = await _fields(request, prompt=str)
    if not prompt.strip():
        raise InputError("the prompt is empty: type a question, or the beginning of a sentence.")
    return JSONResponse(await desk.do(lambda: desk.ask(prompt)))


async def _undo(desk: Desk, request: Request) -> Response:
    (batch,) = await _fields(request, batch=int)
    await desk.do(lambda: desk.undo(batch), "an edit is being taken back")
    return JSONResponse(desk.state)


async def _save(desk: Desk, request: Request) -> Response:
    (where,) = await _fields(request, where=str)
    if where not in WHERE:
        raise InputError(f"'where' must be one of {', '.join(map(repr, WHERE))}.{near(where, WHERE)}")
    done = await desk.do(lambda: desk.save(where), "the edits are being saved")
    return JSONResponse(desk.state | done)


async def _export(desk: Desk, request: Request) -> Response:
    (form,) = await _fields(request, form=str)
    if form not in FORMS:
        raise InputError(f"there is no form {form!r}; known: {', '.join(FORMS)}.{near(form, FORMS)}")
    return JSONResponse({"exported": await desk.do(lambda: desk.export(form), "the model is being exported")})


async def _fields(request: Request, **wanted: type) -> list[Any]:
    """The values of a body that is an object with just these fields, of these types.

    Raises InputError for any other, for texts that are too long, and for what no tokenizer takes; HTTPException for a
    body that is larger than any, and for one that does not call itself JSON (so that no form of a stranger's page can).
    """
    if request.headers.get("content-type", "").split(";")[0].strip() != "application/json":
        raise HTTPException(415, "the request must be application/json.")
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MOST_BYTES:
            raise HTTPException(413, f"the request is too large: at most {MOST_BYTES:,} bytes.")
    try:
        found = json.loads(body)
        texts = list(_texts(found))
    except (ValueError, RecursionError):
        raise InputError("the request is not JSON.") from None
    if not isinstance(found, dict) or found.keys() != wanted.keys():
        raise InputError(f"the request must be an object with {', '.join(map(repr, wanted))} and nothing else.")
    for name, kind in wanted.items():
        if type(found[name]) is not kind:
            raise InputError(f"'{name}' is {called(found[name])}, which it may not be.")
    for text in texts:
        _check_text(text)
    return [found[name] for name in wanted]


def _texts(obj: Any) -> Iterator[str]:
    """All texts in it, however deep, names of fields included."""
    if isinstance(obj, str):
        yield obj
    if isinstance(obj, dict):
        yield from obj
    for part in obj.values() if isinstance(obj, dict) else obj if isinstance(obj, list) else ():
        yield from _texts(part)


def _check_text(text: str) -> None:
    if len(text) > MOST_LETTERS:
        raise InputError(f"a text of {len(text):,} letters: at most {MOST_LETTERS:,}.")
    if "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
        raise InputError("a text holds what is no letter (NUL, or half a Unicode character).")


# ---------------------------------------------------------------------------------------------- what is said


def _told(status: int, text: str) -> Response:
    return JSONResponse({"error": " ".join(text.split())}, status)


async def _wrong(request: Request, error: Exception) -> Response:
    return _told(400, str(error))


async def _busy(request: Request, error: Exception) -> Response:
    return _told(409, str(error))


async def _no_such(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _told(error.status_code, error.detail)


async def _failed(request: Request, error: Exception) -> Response:
    """A defect, or a machine without memory: Starlette raises it again behind this, so that the terminal shows it."""
    return _told(500, f"the program failed ({type(error).__name__}: {error}); its terminal says more, and it goes on.")
