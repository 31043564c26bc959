"""The Python face: edits made, looked at, taken back, saved and opened again, on the tiny recorded Llama."""

import shutil

import jax
import numpy as np
import pytest

from emsedit_jax import EditSession, InputError
from emsedit_jax.edit.step import no_edit
from emsedit_jax.lm.model import load_lm
from emsedit_jax.run import ledger, ledger_files, storing, together, workdir
from emsedit_jax.session import files, ready, work
from emsedit_jax.session.told import Checked, EditReport, FactReport
from tests.run import tiny
from tests.session.small import FACTS, session


def bits(one: EditSession) -> list[bytes]:
    """The edits, to the last bit."""
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(one.deltas)]


@pytest.fixture
def edited() -> EditSession:
    """One fact in a batch, then two in another."""
    one = session()
    one.edit(FACTS[:1])
    one.edit(FACTS[1:])
    return one


def test_an_edit_is_told_fact_by_fact():
    one = session()
    report = one.edit(FACTS)
    assert report.batches == (1,)
    hamlet, tower, capital = report.facts
    assert [fact.asked.prompt for fact in report.facts] == [fact["prompt"] for fact in FACTS]
    assert [each.prompt for each in hamlet.paraphrases] == FACTS[0]["paraphrases"]
    assert hamlet.nearby[0].prompt == "Water boils at"
    assert all(len(fact.nearby) >= 1 for fact in report.facts)
    assert tower.paraphrases == ()
    before, after = report.scores["ES"]
    assert after > before
    assert after == pytest.approx(100 * np.mean([fact.asked.after for fact in report.facts]))
    assert capital.said_after == one.generate("The capital of France is", 4).strip().split("\n")[0].strip()
    assert "batch 1, written in" in str(report)
    assert "<td>The Eiffel Tower is in</td>" in report._repr_html_()


def test_what_broke_is_told_once():
    def one(prompt, *nearby):
        return FactReport(Checked(prompt, "new", 0.0, 1.0), "old", "new", (), nearby)

    gone, half, stays = (Checked("It is", word, 1.0, after) for word, after in (("a", 0.0), ("b", 0.5), ("c", 1.0)))
    never = Checked("It is", "d", 0.5, 0.0)
    text = str(EditReport((1,), (one("x", gone, stays), one("y", gone, half, never)), 1.0))
    assert text.count("broke: It is a") == 1
    assert text.count("broke:") == 2
    assert "facts nearby: of 4 that were right before 38 % of the tokens still are" in text
    assert "the fact itself: 0 % of the tokens right before, 100 % after" in text


def test_a_report_escapes_what_facts_say():
    one = session()
    report = one.edit([("<script>alert(1)</script> is", "here")])
    assert "<script>" not in report._repr_html_()


def test_pairs_and_a_single_fact_are_facts_too():
    one = session()
    assert len(one.edit(("The Eiffel Tower is in", "Rome")).facts) == 1
    assert len(one.edit([("Water boils at", "50 degrees"), ("Ice melts at", "10 degrees")]).facts) == 2
    assert len(one.edit(FACTS[0]).facts) == 1
    assert [fact.edit.answer for fact in one.facts] == ["Rome", "50 degrees", "10 degrees", "Jane Austen"]


def test_more_facts_than_a_batch_holds_are_cut_evenly():
    one = session()
    report = one.edit([(f"The number {number} is called", "seven") for number in range(9)])
    assert [len(facts) for facts in one.batches.values()] == [3, 3, 3]
    assert report.batches == (1, 2, 3)
    assert len(report.facts) == 9


def test_undo_gives_back_every_bit(edited):
    first = session()
    first.edit(FACTS[:1])
    taken = edited.undo()
    assert [fact.edit.prompt for fact in taken] == [fact["prompt"] for fact in FACTS[1:]]
    assert bits(edited) == bits(first)
    edited.undo(1)
    assert bits(edited) == [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(no_edit(edited.editor.sites))]
    with pytest.raises(InputError, match="nothing to take back"):
        edited.undo()
    edited.edit(FACTS[:1])
    assert bits(edited) == bits(first)  # nothing is left in the statistics either
    edited.undo()
    with pytest.raises(InputError, match="no batch 1 in force"):
        edited.undo(1)


def test_an_edit_that_cannot_be_written_down_is_no_edit(edited, monkeypatch):
    before, count = bits(edited), []

    def full(*args):
        count.append(args)
        if len(count) == 2:
            raise OSError(28, "no space left on device")
        return written(*args)

    written = ledger_files.write
    with monkeypatch.context() as patch:
        patch.setattr(ledger_files, "write", full)
        with pytest.raises(OSError, match="no space"):
            edited.edit([(f"The number {number} is called", "seven") for number in range(8)])
    assert bits(edited) == before
    assert (len(edited.facts), len(ledger.read(edited._past.ledger.path).records)) == (3, 2)
    assert edited.edit(("Water boils at", "50 degrees")).batches == (3,)


def test_files_of_a_save_that_died_are_written_over(edited, tmp_path):
    edited.save(tmp_path / "saved")
    edited.edit(("Ice melts at", "10 degrees"))
    (tmp_path / "saved" / "edits" / ledger_files.name_of(3)).write_bytes(b"of other edits")
    edited.save(tmp_path / "saved")
    assert bits(EditSession.load(tmp_path / "saved")) == bits(edited)


def test_scores_are_of_the_facts_in_force(edited):
    told = edited.score()
    assert told.facts == 3
    assert told.edited["ES"] > told.unedited["ES"]
    edited.undo()
    assert edited.score().facts == 1
    other = edited.score([("Water boils at", "100 degrees")])
    assert (other.facts, set(other.edited)) == (1, {"ES"})
    assert "ES" in str(told)


def test_generate_with_and_without_the_edits(edited):
    lm = load_lm(tiny.MODEL)
    prompt = "The Eiffel Tower is in"
    assert edited.generate(prompt, 6, edited=False) == lm.generate([prompt], 6)[0]
    assert edited.generate([prompt, "Water"], 6, edited=False) == lm.generate([prompt, "Water"], 6)
    assert edited.generate(prompt, 6) != edited.generate(prompt, 6, edited=False)


@pytest.mark.parametrize(
    ("facts", "fault"),
    [
        ([], "there are no facts"),
        ([{"prompt": "x"}], "answer"),
        ([{"prompt": "x", "answer": "y", "paraphrase": ["z"]}, {"promt": "x", "answer": "y"}], "promt"),
        ([("x is", "a"), ("x is", "b")], "answer 'x is' differently"),
        ([("x is", "a"), "x"], "row 1"),
        ("nowhere.csv", "no such file"),
        ([("x " * 3000, "y")], r"the model takes \d+\. Correct these rows\.$"),  # no flag leaves them out here
    ],
)
def test_facts_that_are_not_in_order_change_nothing(facts, fault, edited):
    before = bits(edited)
    with pytest.raises(InputError, match=fault):
        edited.edit(facts)
    assert bits(edited) == before
    assert len(edited.facts) == 3


def test_a_solve_that_goes_wrong_changes_nothing(edited):
    before = bits(edited)
    broken = session(**{"editor.lr": 1e38})
    with pytest.raises(InputError, match="have diverged"):
        broken.edit(FACTS)
    assert (broken.facts, broken._past.ledger.records) == ([], [])
    assert bits(edited) == before


def test_a_session_is_saved_and_goes_on(edited, tmp_path):
    assert edited.save(tmp_path / "saved") == tmp_path / "saved"
    again = EditSession.load(tmp_path / "saved")
    assert bits(again) == bits(edited)
    assert again.facts == [
        one.__class__(one.edit, one.equiv, one.unrel, one.subject, other.source)
        for one, other in zip(edited.facts, again.facts, strict=True)
    ]
    last = ("Ice melts at", "10 degrees")
    again.edit(last)
    edited.edit(last)
    assert bits(again) == bits(edited)  # also the statistics went on
    again.save(tmp_path / "saved")
    assert len(EditSession.load(tmp_path / "saved").facts) == 4


def test_a_save_that_was_broken_off_leaves_what_was_saved_before(edited, tmp_path, monkeypatch):
    edited.save(tmp_path / "saved")
    saved = bits(edited)
    edited.edit(("Ice melts at", "10 degrees"))
    with monkeypatch.context() as patch:
        patch.setattr(files.networks, "save", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            edited.save(tmp_path / "saved")
    assert bits(EditSession.load(tmp_path / "saved")) == saved
    edited.save(tmp_path / "saved")
    again = EditSession.load(tmp_path / "saved")
    assert bits(again) == bits(edited)
    assert [fact.edit.prompt for fact in again.batches[3]] == ["Ice melts at"]


@pytest.mark.parametrize("deed", ["load", "--mode=eval", "--mode=undo"])
def test_a_save_that_died_as_files_took_their_places_is_done(deed, edited, tmp_path, monkeypatch):
    folder = tmp_path / "saved"
    edited.save(folder)
    edited.edit(("Ice melts at", "10 degrees"))
    with monkeypatch.context() as patch:
        patch.setattr(together, "complete", lambda path: None)
        edited.save(folder)
    assert (folder / workdir.WHOLE).is_dir()
    if deed == "load":
        assert bits(EditSession.load(folder)) == bits(edited)
    else:
        more = ["--batches=3"] if deed == "--mode=undo" else []
        assert tiny.call(deed, f"--workdir={folder}", *more) == 0
    assert not (folder / workdir.WHOLE).exists()


def test_a_first_save_that_died_is_made_again(edited, tmp_path, monkeypatch):
    folder = tmp_path / "saved"
    with monkeypatch.context() as patch:
        patch.setattr(files.networks, "save", lambda *_: 1 / 0)
        patch.setattr(together.shutil, "rmtree", lambda *_, **more: None)  # no dead program cleans up
        with pytest.raises(ZeroDivisionError):
            edited.save(folder)
    edited.save(folder)
    assert bits(EditSession.load(folder)) == bits(edited)


def no_links(*_, **more):
    raise OSError("another disk")


@pytest.fixture(params=[False, True], ids=["one disk", "two disks"])
def elsewhere(request, monkeypatch) -> bool:
    """Whether temporary files lie on another disk than those that are kept."""
    if request.param:
        monkeypatch.setattr(files.os, "link", no_links)
    return request.param


@pytest.fixture
def again(elsewhere, edited, tmp_path) -> EditSession:
    """A session opened from the folder `saved`."""
    edited.save(tmp_path / "saved")
    return EditSession.load(tmp_path / "saved")


def test_a_session_opened_leaves_the_history_where_it_lies(elsewhere, again, tmp_path):
    kept = list(again._past.folder.ledger.glob("*.safetensors"))
    assert len(kept) == 2
    assert all(file.is_symlink() if elsewhere else file.samefile(tmp_path / "saved/edits" / file.name) for file in kept)
    again.edit(("Ice melts at", "10 degrees"))
    again.save(tmp_path / "other")
    assert not any(file.is_symlink() for file in (tmp_path / "other" / "edits").iterdir())
    assert len(ledger.read(tmp_path / "saved" / "edits").records) == 2
    assert bits(EditSession.load(tmp_path / "other")) == bits(again)


def test_the_folder_that_a_session_was_opened_from_may_go(again, tmp_path):
    again.save(tmp_path / "other")
    shutil.rmtree(tmp_path / "saved")
    again.edit(("Ice melts at", "10 degrees"))
    again.save(tmp_path / "other")
    again.undo(1)
    assert len(EditSession.load(tmp_path / "other").facts) == 4


def test_a_history_that_is_gone_is_told(edited, tmp_path, monkeypatch):
    edited.save(tmp_path / "saved")
    with monkeypatch.context() as patch:
        patch.setattr(files.os, "link", no_links)
        again = EditSession.load(tmp_path / "saved")
    shutil.rmtree(tmp_path / "saved")
    with pytest.raises(InputError, match=r"000001\.safetensors is gone, with the weight change of edits"):
        again.save(tmp_path / "other")
    again.export(tmp_path / "exported", "deltas")


def test_edits_that_another_program_saved_and_died_are_not_written_over(edited, tmp_path, monkeypatch):
    folder = tmp_path / "saved"
    edited.save(folder)
    one, other = EditSession.load(folder), EditSession.load(folder)
    one.edit(("Ice melts at", "10 degrees"))
    with monkeypatch.context() as patch:
        patch.setattr(together, "complete", lambda path: None)
        one.save(folder)
    other.edit(("Steel melts at", "90 degrees"))
    with pytest.raises(InputError, match="edits that this one does not know"):
        other.save(folder)
    assert bits(EditSession.load(folder)) == bits(one)


def test_a_config_of_before_has_what_came_later_at_its_defaults(edited, tmp_path):
    edited.save(tmp_path / "saved")
    for name in ("config.json", "session.json"):
        found = storing.read_json(tmp_path / "saved" / name, "")
        del (found["config"] if name == "session.json" else found)["editor"]["grow"]
        found.pop("stride", None)
        storing.write_json(tmp_path / "saved" / name, found)
    assert workdir.saved_config(tmp_path / "saved").editor.grow is False
    again = EditSession.load(tmp_path / "saved")
    again.edit(("Ice melts at", "10 degrees"))
    assert tiny.call("--mode=generate", f"--workdir={tmp_path / 'saved'}", "--prompt=x") == 0


def test_what_is_saved_is_a_workdir(edited, tmp_path, capsys):
    edited.save(tmp_path / "saved")
    assert tiny.call("--mode=undo", f"--workdir={tmp_path / 'saved'}", "--batches=2") == 0
    assert EditSession.load(tmp_path / "saved").facts == EditSession.load(tmp_path / "saved").batches[1]
    assert tiny.call("--mode=report", f"--workdir={tmp_path / 'saved'}") == 2
    capsys.readouterr()
    assert tiny.call("--mode=eval", f"--workdir={tmp_path / 'saved'}") == 0
    assert "1 facts, answer tokens right" in capsys.readouterr().out


def test_a_folder_with_something_else_is_not_written_over(edited, tmp_path):
    (tmp_path / "mine").write_text("precious")
    with pytest.raises(InputError, match="holds no session"):
        edited.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    edited.save(tmp_path / "saved")
    other = session()
    other.edit(FACTS[2])
    with pytest.raises(InputError, match="another session"):
        other.save(tmp_path / "saved")
    assert len(ledger.read(tmp_path / "saved" / "edits").records) == 2


def test_a_run_is_not_made_in_a_session_s_folder(edited, tmp_path, capsys):
    edited.save(tmp_path / "saved")
    assert tiny.call(*tiny.flags(f"--workdir={tmp_path / 'saved'}")) == 2
    assert "holds a session" in capsys.readouterr().err


def test_a_session_goes_on_from_a_run(tmp_path, capsys):
    tiny.train(tmp_path / "run")
    one = EditSession.load(tmp_path / "run")
    assert len(one.facts) == 8
    one.edit(FACTS[:1])
    with pytest.raises(InputError, match="holds no session"):
        one.save(tmp_path / "run")
    one.undo(1, 2, 3)
    assert one.facts == []
    capsys.readouterr()


def test_an_export_is_the_edited_model(edited, tmp_path):
    with pytest.raises(InputError, match="no edits are in force"):
        session().export(tmp_path / "model")
    edited.export(tmp_path / "model")
    lm = load_lm(tmp_path / "model")
    assert lm.generate(["The Eiffel Tower is in"], 6) == edited.generate(["The Eiffel Tower is in"], 6)
    edited.export(tmp_path / "lora", "lora")
    names = {"adapter_model.safetensors", "adapter_config.json", "SHA256SUMS"}
    assert {path.name for path in (tmp_path / "lora").iterdir()} == names
    with pytest.raises(InputError, match="Did you mean 'lora'"):
        edited.export(tmp_path / "other", "loar")
    with pytest.raises(InputError, match="is there already"):
        edited.export(tmp_path / "model")


def test_networks_are_trained_and_kept(tmp_path, capsys):
    one = session("emsedit")
    assert one.networks == "untrained"
    before = jax.device_get(one.state.thetas)
    facts = [fact | {"paraphrases": ["In other words?"]} for fact in FACTS]
    assert one.train(facts) == 3
    assert one.networks == "trained on 3 facts"
    assert any(np.any(a != b) for a, b in zip(*map(jax.tree.leaves, (before, one.state.thetas)), strict=True))
    one.edit(FACTS)
    one.save(tmp_path / "saved")
    other = session("emsedit")
    other.load_networks(tmp_path / "saved")
    assert "saved" in other.networks
    saved = f"--workdir={tmp_path / 'saved'}"
    assert tiny.call("--mode=export", saved, f"--to={tmp_path / 'deltas'}", "--as=deltas") == 0
    assert tiny.call("--mode=eval", saved) == 0
    with pytest.raises(InputError, match="has no networks"):
        session().train()
    with pytest.raises(InputError, match="a paraphrase"):
        one.train([("x is", "y")])
    capsys.readouterr()


def test_settings_are_checked():
    with pytest.raises(InputError, match=r"editor\.lrr.*Did you mean 'editor\.lr'"):
        EditSession.from_pretrained(tiny.MODEL, settings={"editor.lrr": 1})
    with pytest.raises(InputError, match="Did you mean 'emsedit'"):
        EditSession.from_pretrained(tiny.MODEL, "emsedi")
    with pytest.raises(InputError, match="must be"):
        EditSession.from_pretrained(tiny.MODEL, settings={"editor.lr": -1.0})


def test_an_eta_that_is_too_small_is_found(tmp_path):
    weak = session(**{"editor.lr": 1e-4, "editor.iters": 3})
    assert not weak.edit(FACTS[1]).facts[0].took
    one = session(**{"editor.lr": 1e-4, "editor.iters": 3, "editor.grow": True})
    assert one.edit(FACTS[1]).facts[0].took
    assert np.log2(one._stride) in range(5, 17)
    one.save(tmp_path / "saved")
    again = EditSession.load(tmp_path / "saved")
    assert bits(again) == bits(one)  # from the factors in the ledger
    one.edit(FACTS[2])
    again.edit(FACTS[2])
    assert bits(again) == bits(one)  # it begins where the other one did
    one.undo(2)
    assert one._stride > 0
    one.undo(1)
    assert one._stride == 0  # as if nothing had been edited
    assert not any(np.asarray(leaf).any() for leaf in one.deltas)


def test_an_eta_that_serves_is_not_changed_by_much():
    one = session(**{"editor.grow": True, "editor.iters": 8})  # eta is large already
    assert one.edit(FACTS[1]).facts[0].took
    assert one._stride in (1, 2, 4)


def test_growing_ends_where_nothing_is_gained(monkeypatch):
    one = session(**{"editor.lr": 1e-4, "editor.grow": True})
    tried = []
    plain = work._in_steps

    def worse(run, deltas, state, number, stride, steps, judged=False):
        tried.append(stride)
        found = plain(run, deltas, state, number, 1.0, 1, judged=True)
        return found._replace(stride=stride, taken=False, began=10.0, loss=8.0 + stride / 16)

    monkeypatch.setattr(work, "_in_steps", worse)
    one.edit(FACTS[1])
    assert tried == [1, 1, 2]  # a trial, and the first that gains nothing over the one before
    assert one._stride == 0  # nothing to begin with the next time


def test_a_stride_that_is_too_long_gives_way(monkeypatch):
    one = session(**{"editor.grow": True})
    one._stride = 8.0
    tried, plain = [], work._in_steps

    def told(run, deltas, state, number, stride, steps, judged=False):
        tried.append(stride)
        if stride == 8:
            raise work.Diverged("broken", deltas, state)
        found = plain(run, deltas, state, number, stride, steps, judged)
        return found._replace(taken=False, loss=found.began + 1) if stride == 2 else found

    monkeypatch.setattr(work, "_in_steps", told)
    report = one.edit(FACTS[1])
    assert tried[:3] == [8, 2, 0.5]
    assert 8 not in tried[1:]
    assert report.facts[0].asked.after > report.facts[0].asked.before


def test_an_edit_that_never_gains_is_told_and_changes_nothing(monkeypatch):
    one = session(**{"editor.lr": 1e-4, "editor.grow": True})
    plain = work._in_steps
    monkeypatch.setattr(
        work, "_in_steps", lambda *given, **more: plain(*given, **more)._replace(taken=False, began=1.0, loss=2.0)
    )
    with pytest.raises(InputError, match="however short a step, its answers do not gain by it"):
        one.edit(FACTS[1])
    assert (one.facts, one._past.ledger.records) == ([], [])


def test_growing_is_for_models_of_which_nothing_is_known():
    assert not ready.config_of("smollm2-135m", "emsedit", {}).editor.grow
    assert ready.config_of("smollm2-135m", "ultraedit", {}).editor.grow
    assert ready.config_of("/models/other", "ultraedit", {}).editor.grow
    assert not ready.config_of("/models/other", "ultraedit", {"editor.lr": 1e-5}).editor.grow
    assert ready.config_of("/models/other", "ultraedit", {"editor.lr": 1e-5, "editor.grow": True}).editor.grow


def test_a_run_does_not_grow(capsys):
    assert tiny.call(*tiny.flags("--config.editor.grow")) == 2
    assert "--config.editor.grow is for edits by hand: leave it out" in capsys.readouterr().err


def test_sites_that_nobody_named_are_high_in_the_model():
    config = ready.config_of(str(tiny.MODEL), "ultraedit", {})
    ready.fill_sites(config, load_lm(tiny.MODEL).config)
    assert config.model.edit_modules == ("model.layers.4.mlp.gate_proj", "model.layers.4.mlp.up_proj")
