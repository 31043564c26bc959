"""The page to edit by hand: who gets in, and what of a request is bounded."""

import re

import pytest

pytest.importorskip("starlette", reason="the page needs the extra `serve`: pip install -e '.[serve]'")
pytest.importorskip("httpx2", reason="its test client needs httpx2, of the extra `test`")

from emsedit_jax.session import serve_app
from tests.session.paging import BASE, BEARER, TOKEN, client, wrong


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer another-token-here"},
        {"authorization": f"Basic {TOKEN}"},
        {"authorization": f"Bearer {TOKEN}x"},
        {"authorization": b"Bearer tok\xe9n"},
        {"cookie": "emsedit-8765=another-token-here"},
        {"cookie": f"emsedit-8766={TOKEN}"},
    ],
)
@pytest.mark.parametrize("path", ["/", "/page.js", "/api/state", "/api/nothing"])
def test_nothing_is_given_without_the_token(desk, headers, path):
    answer = client(desk, headers=headers).get(path)
    assert answer.status_code == 403
    assert "token" in answer.text
    assert "set-cookie" not in answer.headers
    assert ("error" in answer.json()) if path.startswith("/api/") else answer.text.startswith("403: ")


def test_the_first_visit_brings_a_cookie_that_opens_the_rest(desk):
    one = client(desk, headers={})
    assert one.get("/?token=wrong").status_code == 403
    assert one.get(f"/api/state?token={TOKEN}").status_code == 403
    first = one.get(f"/?token={TOKEN}")
    assert (first.status_code, first.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert first.headers["set-cookie"] == f"emsedit-8765={TOKEN}; HttpOnly; SameSite=Strict; Path=/"
    for path in ("/", "/page.js", "/page.css", "/icon.svg", "/api/state"):
        assert one.get(path).status_code == 200
    assert wrong(one.get("/api/nothing"), 404)
    assert wrong(one.get("/../serve.py"), 404)


@pytest.mark.parametrize("host", ["localhost:9000", "127.0.0.1", "[::1]:8765", "LOCALHOST", "192.168.1.5:8765"])
def test_its_own_names_are_answered(desk, host):
    assert client(desk, "192.168.1.5").get("/api/state", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "127.0.0.1.evil.example",
        "localhost.evil.example:8765",
        "user@localhost",
        "localhost/x",
        "192.168.1.6",
        "",
        "[::1",
    ],
)
def test_other_names_are_not(desk, host):
    assert "its own address" in wrong(client(desk, "192.168.1.5").get("/api/state", headers={"host": host}), 403)


def test_two_names_at_once_are_none(desk):
    twice = [("host", "localhost"), ("host", "evil.example"), *BEARER.items()]
    assert "its own address" in wrong(client(desk, headers=None).get("/api/state", headers=twice), 403)


def test_bound_to_all_addresses_it_has_any_number_and_no_name(desk):
    one = client(desk, "0.0.0.0")
    assert one.get("/api/state", headers={"host": "10.1.2.3:8765"}).status_code == 200
    wrong(one.get("/api/state", headers={"host": "evil.example"}), 403)


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://127.0.0.1:3000", "http://localhost:8765", BASE + "/", ""]
)
def test_other_pages_change_nothing(browser, known, origin):
    """Not even with the cookie, which browsers send from every port of the same machine."""
    for one in (browser, known):
        assert "only the page itself" in wrong(one.post("/api/edit", json={}, headers={"origin": origin}), 403)


def test_the_page_itself_does(browser):
    assert "'facts'" in wrong(browser.post("/api/edit", json={}))
    tunnel = {"host": "localhost:9000", "origin": "http://localhost:9000"}
    assert "'facts'" in wrong(browser.post("/api/edit", json={}, headers=tunnel | {"cookie": f"emsedit-8765={TOKEN}"}))


def test_a_cookie_alone_is_no_page(desk):
    one = client(desk, headers={"cookie": f"emsedit-8765={TOKEN}"})
    assert one.get("/api/state").status_code == 200
    wrong(one.post("/api/ask", json={"prompt": "x"}), 403)


def test_every_answer_says_what_a_page_may_do(desk, known):
    for answer in (known.get("/"), known.get("/api/state"), known.get("/nothing"), client(desk, headers={}).get("/")):
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; ")
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cache-control"] == "no-store"
        assert "set-cookie" not in answer.headers  # but on the first visit


def test_the_page_stands_alone_and_makes_no_markup_of_texts():
    page = (serve_app.PAGE / "index.html").read_text(encoding="utf-8")
    script = (serve_app.PAGE / "page.js").read_text(encoding="utf-8")
    style = (serve_app.PAGE / "page.css").read_text(encoding="utf-8")
    assert re.findall(r"<script[^>]*>", page) == ['<script src="page.js" defer>']
    assert not re.search(r"<style|\sstyle=|\son\w+=", page)
    assert not re.search(r"https?://|@import|url\(", page + script + style)
    assert not re.search(r"(inner|outer)HTML|insertAdjacent|document\.write|eval|Function\(|DOMParser|srcdoc", script)
    assert set(re.findall(r'at\("([\w-]+)"\)', script)) <= set(re.findall(r'id="([\w-]+)"', page))


# ---------------------------------------------------------------------------------------------- what is bounded


def test_a_request_is_bounded(known):
    assert "too large" in wrong(known.post("/api/edit", json={"facts": ["x" * serve_app.MOST_BYTES]}), 413)
    parts = (b"x" * 100_000 for _ in range(11))  # without a length
    json = {"content-type": "application/json"}
    assert "too large" in wrong(known.post("/api/edit", content=parts, headers=json), 413)


HALVES = [("ask", b'{"prompt": "\\ud83d"}'), ("edit", b'{"facts": [{"prompt": "a", "answer": "b", "\\ud83d": 1}]}')]


@pytest.mark.parametrize(("deed", "body"), HALVES, ids=["text", "field"])
def test_half_a_character_is_told(deed, body, known):
    assert "half a" in wrong(known.post(f"/api/{deed}", content=body, headers={"content-type": "application/json"}))
