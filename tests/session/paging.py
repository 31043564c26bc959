"""The page's application for tests, and how its refusals are read."""

from starlette.testclient import TestClient

from emsedit_jax.session import serve_app
from emsedit_jax.session.serve_desk import Desk

TOKEN = "a-token-of-the-test"
BEARER = {"authorization": f"Bearer {TOKEN}"}
BASE = "http://127.0.0.1:8765"
TOWER = {"prompt": "The Eiffel Tower is in", "answer": "Rome", "paraphrases": ["Where is the Eiffel Tower?"]}


def client(desk: Desk, host: str = "127.0.0.1", headers=BEARER, **more) -> TestClient:
    """Who asks the page of `desk`, which is bound to `host`; by default a program that shows the token."""
    return TestClient(serve_app.build(desk, TOKEN, host, 8765), base_url=BASE, headers=headers, **more)


def wrong(answer, status: int = 400) -> str:
    """The one line of a refusal."""
    assert answer.status_code == status
    assert set(answer.json()) == {"error"}
    assert "\n" not in answer.json()["error"]
    return answer.json()["error"]
