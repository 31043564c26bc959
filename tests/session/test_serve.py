"""The page to edit by hand: every deed, and the program that serves it, on the tiny recorded Llama."""

import importlib.util
import os
import re
import signal
import socket
import threading
import urllib.request
from pathlib import Path

import pytest

pytest.importorskip("starlette", reason="the page needs the extra `serve`: pip install -e '.[serve]'")
pytest.importorskip("httpx2", reason="its test client needs httpx2, of the extra `test`")

from starlette.testclient import TestClient

from emsedit_jax import EditSession
from emsedit_jax.run import workdir
from emsedit_jax.run.command import Door
from emsedit_jax.session import serve, serve_app, serve_desk
from emsedit_jax.session.serve_desk import Desk
from emsedit_jax.session.told import EditReport
from tests.refusals import refused
from tests.run import tiny
from tests.session.paging import BASE, BEARER, TOKEN, TOWER, client, wrong
from tests.session.small import session

CAPITAL = {"prompt": "The capital of France is", "answer": "Lyon", "paraphrases": ["What is France's capital?"]}
ODD = "The <b>Eiffel</b> Tower is in"


def test_a_fact_is_written_asked_and_taken_back(browser, desk):
    before = browser.get("/api/state").json()
    assert (before["batches"], before["facts"], before["unsaved"], before["report"]) == ([], 0, 0, None)
    state = browser.post("/api/edit", json={"facts": [TOWER]}).json()
    (number,) = state["report"]["batches"]
    (fact,) = state["report"]["facts"]
    assert (fact["asked"]["prompt"], fact["asked"]["answer"]) == (TOWER["prompt"], TOWER["answer"])
    assert fact["said_before"] != fact["said_after"]
    assert fact["took"] == (fact["asked"]["after"] == 1)
    assert [one["prompt"] for one in fact["paraphrases"]] == TOWER["paraphrases"]
    assert len(fact["nearby"]) > 1
    assert state["batches"] == [
        {"number": number, "facts": [{"prompt": TOWER["prompt"], "answer": TOWER["answer"]}], "more": 0}
    ]
    assert (state["facts"], state["unsaved"], state["doing"]) == (1, 1, "")
    assert desk.unsaved() == ["'The Eiffel Tower is in' -> 'Rome'"]

    told = browser.post("/api/ask", json={"prompt": TOWER["prompt"]}).json()
    assert told["before"] == desk.session.generate(TOWER["prompt"], 4, edited=False)
    assert told["after"] == desk.session.generate(TOWER["prompt"], 4) != told["before"]
    assert told["facts"] == 1

    state = browser.post("/api/undo", json={"batch": number}).json()
    assert (state["batches"], state["unsaved"]) == ([], 0)
    told = browser.post("/api/ask", json={"prompt": TOWER["prompt"]}).json()
    assert told["before"] == told["after"]
    assert "not in force" in wrong(browser.post("/api/undo", json={"batch": number}))


def test_only_the_newest_are_listed(known, monkeypatch):
    monkeypatch.setattr(serve_desk, "MOST_BATCHES", 1)
    known.post("/api/edit", json={"facts": [TOWER]})
    state = known.post("/api/edit", json={"facts": [CAPITAL]}).json()
    assert (state["facts"], state["earlier"]) == (2, 1)
    (only,) = state["batches"]
    assert ([one["prompt"] for one in only["facts"]], only["more"]) == ([CAPITAL["prompt"]], 0)
    monkeypatch.setattr(serve_desk, "MOST_FACTS", 0)
    state = known.post("/api/undo", json={"batch": only["number"]}).json()
    assert [(one["facts"], one["more"]) for one in state["batches"]] == [([], 1)]


def test_texts_pass_as_they_are(known):
    """As data: the page puts them in as text."""
    state = known.post("/api/edit", json={"facts": [{"prompt": ODD, "answer": "<i>here</i>"}]})
    assert state.headers["content-type"] == "application/json"
    assert state.json()["batches"][0]["facts"] == [{"prompt": ODD, "answer": "<i>here</i>"}]
    assert known.post("/api/ask", json={"prompt": ODD}).json()["prompt"] == ODD
    error = wrong(known.post("/api/export", json={"form": ODD}))
    assert ODD in error


def test_a_session_is_kept_and_nothing_is_written_over_unasked(known, desk, tmp_path):
    known.post("/api/edit", json={"facts": [TOWER]})
    told = known.post("/api/save", json={"where": ""}).json()
    assert (told["saved"], told["unsaved"]) == (str(tmp_path / "kept"), 0)
    assert [one.edit.prompt for one in EditSession.load(tmp_path / "kept").facts] == [TOWER["prompt"]]
    known.post("/api/edit", json={"facts": [CAPITAL]})
    assert "ask" not in known.post("/api/save", json={"where": ""}).json()  # its own

    again = Desk(desk.session, tmp_path / "kept")
    later = client(again)
    later.post("/api/edit", json={"facts": [{**CAPITAL, "answer": "Nice"}]})
    told = later.post("/api/save", json={"where": ""}).json()
    assert told["ask"] == {"over": str(tmp_path / "kept"), "beside": str(tmp_path / "kept-2")}
    assert len(EditSession.load(tmp_path / "kept").facts) == 2
    assert later.post("/api/save", json={"where": "beside"}).json()["saved"] == str(tmp_path / "kept-2")
    again.path = tmp_path / "kept"
    assert later.post("/api/save", json={"where": "over"}).json()["saved"] == str(tmp_path / "kept")
    assert [len(EditSession.load(tmp_path / name).facts) for name in ("kept", "kept-2")] == [3, 3]
    again.close()


def test_a_save_that_fails_asks_the_next_time(known, desk, tmp_path):
    known.post("/api/edit", json={"facts": [TOWER]})
    known.post("/api/save", json={"where": ""})
    (tmp_path / "kept" / "session.json").unlink()  # by somebody else
    assert "holds no session" in wrong(known.post("/api/save", json={"where": ""}))
    assert known.post("/api/save", json={"where": ""}).json()["ask"]["beside"] == str(tmp_path / "kept-2")


def test_an_export_goes_to_a_new_folder(known, tmp_path, capsys):
    known.post("/api/edit", json={"facts": [TOWER]})
    assert known.post("/api/export", json={"form": "lora"}).json() == {"exported": str(tmp_path / "kept-lora")}
    assert known.post("/api/export", json={"form": "lora"}).json() == {"exported": str(tmp_path / "kept-lora-2")}
    for name in ("kept-lora", "kept-lora-2"):
        assert (tmp_path / name / "adapter_config.json").is_file()
    capsys.readouterr()


def test_what_fails_is_told_and_the_page_goes_on(desk, known, monkeypatch):
    broken = session(**{"editor.lr": 1e38})
    with monkeypatch.context() as patched:
        patched.setattr(desk, "session", broken)
        assert "diverged" in wrong(known.post("/api/edit", json={"facts": [TOWER]}))
    patient = client(desk, raise_server_exceptions=False)
    with monkeypatch.context() as patched:
        patched.setattr(desk.session, "generate", lambda *args, **more: 1 / 0)
        told = wrong(patient.post("/api/ask", json={"prompt": "x"}), 500)
    assert "ZeroDivisionError" in told
    assert "Traceback" not in told
    state = known.post("/api/edit", json={"facts": [TOWER]}).json()
    assert (state["facts"], state["doing"]) == (1, "")


def test_one_edit_at_a_time(desk, known, monkeypatch):
    begun, go_on = threading.Event(), threading.Event()

    def slow(facts):
        begun.set()
        assert go_on.wait(60)
        return EditReport((1,), (), 0.0)

    monkeypatch.setattr(desk.session, "edit", slow)
    answers = []
    first = threading.Thread(target=lambda: answers.append(client(desk).post("/api/edit", json={"facts": [TOWER]})))
    first.start()
    try:
        assert begun.wait(60)
        assert known.get("/api/state").json()["doing"] == "an edit is being made"  # answered meanwhile
        for deed, body in (("edit", {"facts": [TOWER]}), ("undo", {"batch": 1}), ("save", {"where": ""})):
            assert "an edit is being made: wait" in wrong(known.post(f"/api/{deed}", json=body), 409)
        asked = threading.Thread(
            target=lambda: answers.append(client(desk).post("/api/ask", json={"prompt": "Water boils at"}))
        )
        asked.start()  # which waits
    finally:
        go_on.set()
    first.join()
    asked.join()
    assert [answer.status_code for answer in answers] == [200, 200]
    assert known.get("/api/state").json()["doing"] == ""


def test_not_everybody_waits(desk, known, monkeypatch):
    monkeypatch.setattr(serve_desk, "MOST_WAITING", 0)
    assert "too much" in wrong(known.post("/api/ask", json={"prompt": "x"}), 409)


# ---------------------------------------------------------------------------------------------- the program


def test_the_program_says_where_the_page_is_and_what_is_lost(shared, tmp_path, monkeypatch, capsys):
    def visited(app, listening):
        listening.getsockname()  # still ours
        url = re.findall(r"^page +(\S+)", capsys.readouterr().out, re.MULTILINE)[0]
        assert TestClient(app, base_url=url.split("/?")[0]).get(url).status_code == 200
        TestClient(app, base_url=BASE, headers={"authorization": f"Bearer {url.split('token=')[1]}"}).post(
            "/api/edit", json={"facts": [TOWER]}
        )

    monkeypatch.setattr(serve, "_serve", visited)
    serve.run(Door(port=0), tmp_path / "kept", lambda: shared)
    told = capsys.readouterr().out
    assert "unsaved  'The Eiffel Tower is in' -> 'Rome'" in told
    assert "what was not saved is gone" in told
    shared.undo()


def test_a_second_interruption_tells_what_is_lost_and_ends_at_once(shared, tmp_path, monkeypatch, capsys):
    class Ended(Exception):
        pass

    def ends(code):
        raise Ended(code)

    def interrupted(app, listening):
        token = re.findall(r"token=(\S+)", capsys.readouterr().out)[0]
        client = TestClient(app, base_url=BASE, headers={"authorization": f"Bearer {token}"})
        client.post("/api/edit", json={"facts": [TOWER]})
        raise KeyboardInterrupt

    monkeypatch.setattr(serve, "_serve", interrupted)
    monkeypatch.setattr(serve.os, "_exit", ends)
    monkeypatch.setattr(shared, "close", lambda: None)  # other tests go on with it
    with pytest.raises(Ended, match="130"):
        serve.run(Door(port=0), tmp_path / "kept", lambda: shared)
    assert "unsaved  'The Eiffel Tower is in' -> 'Rome'" in capsys.readouterr().out
    shared.undo()


def test_a_token_is_drawn_anew_each_time(shared, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(serve, "_serve", lambda app, listening: None)
    found = []
    for _ in range(2):
        serve.run(Door(port=0), tmp_path / "kept", lambda: shared)
        found += re.findall(r"token=(\S+)", capsys.readouterr().out)
    assert len(set(found)) == 2
    assert min(map(len, found)) >= 43
    serve.run(Door(port=0, token=TOKEN), tmp_path / "kept", lambda: shared)
    said = capsys.readouterr().out
    assert f"token={TOKEN}" in said
    assert "nothing was left unsaved" in said
    assert "other machines" not in said
    serve.run(Door(host="0.0.0.0", port=0), tmp_path / "kept", lambda: shared)
    assert "reached from other machines" in capsys.readouterr().out


def test_an_address_that_cannot_be_had_is_told_before_the_model_is_loaded(tmp_path):
    def never():
        raise AssertionError

    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with refused(f"127.0.0.1, port {port}", "in use", "--port"):
            serve.run(Door(port=port), tmp_path, never)
    with refused("no.such.host.invalid"):
        serve.run(Door(host="no.such.host.invalid", port=0), tmp_path, never)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_until_it_is_asked_to_stop(desk, capfd, number):
    seen = []

    def visit(port: int) -> None:
        try:
            request = urllib.request.Request(f"http://127.0.0.1:{port}/api/state", headers=BEARER)
            with urllib.request.urlopen(request, timeout=60) as answer:
                seen.append((answer.status, answer.headers["server"]))
        finally:
            os.kill(os.getpid(), number)

    former = signal.getsignal(number)
    with serve.bound(Door(port=0)) as listening:
        port = listening.getsockname()[1]
        visitor = threading.Thread(target=visit, args=(port,))
        visitor.start()
        serve._serve(serve_app.build(desk, TOKEN, "127.0.0.1", port), listening)
        visitor.join()
    assert seen == [(200, None)]
    assert signal.getsignal(number) == former
    assert "stopping" in capfd.readouterr().out


def test_a_missing_extra_is_told(monkeypatch, tmp_path):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "uvicorn" else find(name))
    with refused("needs uvicorn", "pip install -e '.[serve]'"):
        serve.run(Door(), tmp_path, session)


def test_a_run_is_not_written_over(tmp_path, monkeypatch):
    workdir.open_workdir(tmp_path / "run", tiny.command().config)
    assert serve_desk.target_of(tmp_path / "run") == tmp_path / "run-2"
    assert serve_desk.target_of(tmp_path / "new") == tmp_path / "new"
    monkeypatch.chdir(tmp_path / "run")
    assert serve_desk.target_of(Path(".")) == tmp_path / "run-2"


def test_a_session_that_was_saved_is_opened_again(shared, tmp_path, monkeypatch, capsys):
    shared.edit(TOWER)
    shared.save(tmp_path / "kept")
    shared.undo()
    seen = {}
    monkeypatch.setattr(serve, "run", lambda door, path, opened: seen.update(door=door, path=path, session=opened()))
    assert tiny.call("--mode=serve", f"--workdir={tmp_path / 'kept'}", "--port=0") == 0
    assert (seen["path"], seen["door"]) == (tmp_path / "kept", Door(port=0))
    desk = Desk(seen["session"], serve_desk.target_of(seen["path"]))
    assert (desk.state["facts"], desk.state["unsaved"]) == (1, 0)
    (number,) = desk.session.batches
    desk.undo(number)
    assert (desk.unsaved(), desk.state["unsaved"]) == ([f"batch {number} taken back"], 1)
    desk.close()
    flags = tiny.flags(f"--workdir={tmp_path / 'kept'}", "--mode=serve", editor="ultraedit")
    assert tiny.call(*flags) == 2
    assert "leave --config out" in capsys.readouterr().err
