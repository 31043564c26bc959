"""The Python face: a model, an editor and the edits made so far.

    from emsedit_jax import EditSession

    session = EditSession.from_pretrained("smollm2-135m")
    print(session.edit([("The capital of France is", "Lyon")]))
    print(session.generate("The capital of France is"))
    session.undo()

Its folder, once saved, is a workdir like that of a run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import jax
import ml_collections

from emsedit_jax.data.cues import Cue, EditRecord
from emsedit_jax.edit.step import no_edit
from emsedit_jax.errors import InputError, spans
from emsedit_jax.lm.identity import identify
from emsedit_jax.lm.model import LM, load_lm
from emsedit_jax.measure.score import means
from emsedit_jax.meta import trajectory
from emsedit_jax.run import edits, ledger, prepare
from emsedit_jax.run import export as exporting
from emsedit_jax.run import networks as nets
from emsedit_jax.run.prepare import Prepared
from emsedit_jax.run.resources import use_compile_cache
from emsedit_jax.run.workdir import Workdir
from emsedit_jax.session import files, given, lessons, ready, work
from emsedit_jax.session.files import Saved
from emsedit_jax.session.given import Facts
from emsedit_jax.session.past import Past
from emsedit_jax.session.told import EditReport, ScoreReport
from emsedit_jax.types import MetaState


class EditSession:
    """A model under edits that are made, looked at and taken back one after the other.

    The model's weights never change: an edit is a tree of weight changes beside them. For those who call the pure
    functions below: `lm` (its `params`), `editor` (its `sites`), `state` (networks and statistics) and `deltas`.

    Examples:
      >>> session = EditSession.from_pretrained("smollm2-135m", "ultraedit")
      >>> report = session.edit([("The capital of France is", "Lyon"), ("The author of Hamlet is", "Jane Austen")])
      >>> report.batches
      (1,)
      >>> [fact.asked.answer for fact in report.facts]
      ['Lyon', 'Jane Austen']
      >>> session.edit({"prompt": "The Eiffel Tower is in the city of", "answer": "Rome"}).batches
      (2,)
      >>> [fact.edit.answer for fact in session.undo()]
      ['Rome']
      >>> [fact.edit.answer for fact in session.facts]
      ['Lyon', 'Jane Austen']
    """

    def __init__(self, config: ml_collections.ConfigDict, lm: LM):
        """Use `from_pretrained` or `load`.

        Args:
          config: complete, see `run/defaults.py`.
          lm: the model that it names.
        """
        if config.compile_cache:
            use_compile_cache()
        ready.fill_sites(config, lm.config)
        self.config, self.lm = config, lm
        self.base = identify(config.model.name_or_path, lm.params)
        self.editor = prepare.editor_of(config, lm.config)
        self.state = trajectory.init(self.editor, config.seed)
        self.deltas = no_edit(self.editor.sites)
        self._past = Past(self.base, self.editor.sites)
        self._states: dict[int, tuple[MetaState, float]] = {}  # a batch that begins an edit -> state, stride before it
        self._stride = 0.0  # times eta, of the first edit that took; 0: there is none yet
        self.networks = "none needed" if not self.editor.method.learned else "untrained"

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path = "smollm2-135m",
        editor: str = "emsedit",
        *,
        networks: str | Path | None = None,
        dtype: str = "auto",
        accept_terms: bool = False,
        settings: Mapping[str, Any] | None = None,
        progress: Callable[[str], None] | None = None,
    ) -> EditSession:
        """A session on a model by name, Hugging Face folder or `org/name` of the hub; nothing is edited yet.

        Args:
          editor: emsedit, rledit, malmen, mend or ultraedit.
          networks: trained before: a run's folder, a saved session's, or their file. None: those that come with the
            package for this model, if there are any; else they are as they are drawn until `train` is called.
          dtype: of the weights: auto, float32, bfloat16.
          accept_terms: the terms of use of a model that has some are accepted.
          settings: fields of the config by their full names, such as `{"editor.lr": 1e-4, "dataset.n_edits": 20}`.
          progress: is told, in words, of a download or conversion.

        Raises InputError for whatever is wrong with these.
        """
        config = ready.config_of(str(model), editor, dict(settings or {}) | {"model.dtype": dtype})
        session = cls(config, load_lm(model, dtype, accept_terms=accept_terms, progress=progress))
        session.load_networks(networks if networks is not None else ready.networks_of(session.config))
        return session

    @classmethod
    def load(cls, folder: str | Path) -> EditSession:
        """The session saved in `folder`, or one that goes on from the run there, with its networks and its edits.

        Raises InputError where there is none, it is damaged, or its model has other weights now.
        """
        saved = files.read(Path(folder))
        model = saved.config.model
        session = cls(saved.config, load_lm(model.name_or_path, model.dtype, accept_terms=model.accept_terms))
        session._open(saved)
        return session

    # ------------------------------------------------------------------------------------------ what it is for

    def train(self, facts: Facts | None = None) -> int:
        """Trains the networks on facts with paraphrases; edits stay as they are. Returns how many facts were used.

        None: facts that come with the package. Raises InputError for an editor without networks, and for facts that
        cannot be learned from.
        """
        if not self.editor.method.learned:
            raise InputError(f"{self.config.editor.name} has no networks to train: edit at once.")
        self.state, used = lessons.learn(self.config, self.lm, self.base, self.editor, facts)
        self.networks = f"trained on {used} facts"
        return used

    def load_networks(self, path: str | Path | None) -> None:
        """Takes over networks that were trained before; without a path, or without networks, all stays as it is.

        Raises InputError where there are none, and for networks of another editor, model, site or size.
        """
        if path is not None and self.editor.method.learned:
            file = nets.file_of(str(path))
            self.state = nets.load(file, self.editor, self.state, self.base)
            self.networks = f"trained, from {file}"

    def edit(self, facts: Facts, progress: Callable[[str], None] | None = None) -> EditReport:
        """Writes facts, batch after batch, and tells what came of each. Either all of them are written, or none.

        Args:
          facts: a list of `{"prompt": ..., "answer": ...}` with, where you have them, `subject`, `paraphrases` (texts)
            and `unrelated` (`{"prompt", "answer"}`); or of (prompt, answer) pairs; or the name of a file of such.
          progress: is told, in words, how far it is.

        Raises InputError for facts that are not in order or contradict each other, and where a solve goes wrong.
        """
        wanted = given.read(facts, "eval")
        given.check_agree(wanted)
        looked_at = given.with_nearby(wanted, self.facts, self.config.dataset.hold)
        size = self.config.dataset.n_edits
        runs = [
            self._prepared([one.watched for one in part], [cue for one in part for cue in one.held])
            for part in given.cut(looked_at, size)
        ]
        began, former = time.monotonic(), self.deltas
        deltas, state, written, stride = former, self.state, [], self._stride
        for number, run in enumerate(runs):
            if self._grows:
                found = work.edit_until_taken(run, deltas, state, number, stride)
                stride = stride or (found.stride if found.taken else 0.0)
            else:
                found = work.edit_in(run, deltas, state, number)
            deltas, state = found.deltas, found.state
            if progress is not None:
                progress(f"batch {number + 1} of {len(runs)} is written; all are kept once the last one is")
            written.append(found.factors)
        jax.block_until_ready(deltas)
        seconds = time.monotonic() - began
        told = [work.reports(run, former, deltas, self.config.eval.max_new_tokens) for run in runs]
        batches = self._past.append(given.cut(wanted, size), written, told)
        self._states[batches[0]] = self.state, self._stride
        self.deltas, self.state, self._stride = deltas, state, stride
        return EditReport(batches, tuple(one for reports in told for one in reports), seconds)

    @overload
    def generate(self, prompts: str, max_new_tokens: int = 32, *, edited: bool = True, **drawing: Any) -> str: ...
    @overload
    def generate(
        self, prompts: Sequence[str], max_new_tokens: int = 32, *, edited: bool = True, **drawing: Any
    ) -> list[str]: ...
    def generate(self, prompts, max_new_tokens=32, *, edited=True, **drawing):
        """How the model goes on after a text, or after each of several.

        Args:
          edited: False asks the model as it was.
          drawing: `temperature`, `top_k`, `top_p`, `seed` as in `LM.generate`; without them the likeliest token.
        """
        asked = [prompts] if isinstance(prompts, str) else list(prompts)
        sites, deltas = (self.editor.sites, self.deltas) if edited else ((), None)
        said = self.lm.generate(asked, max_new_tokens, sites=sites, deltas=deltas, **drawing)
        return said[0] if isinstance(prompts, str) else said

    def score(self, facts: Facts | None = None) -> ScoreReport:
        """How many answer tokens are right with and without the edits, of the facts given; None: of those edited in.

        Raises InputError for facts that are not in order, and where there are none.
        """
        asked = self.facts if facts is None else given.read(facts, "eval")
        if not asked:
            raise InputError("no facts are in force: edit some first (--mode=edit), or give facts to score.")
        runs = [self._prepared(part) for part in given.cut(asked, self.config.dataset.n_edits)]
        plain = no_edit(self.editor.sites)
        sides = (means([work.shares(run, deltas) for run in runs]) for deltas in (plain, self.deltas))
        return ScoreReport(next(sides), next(sides), len(asked))

    def undo(self, *batches: int) -> tuple[EditRecord, ...]:
        """Takes batches back, to the last bit as if they had not been made; without numbers those of the last `edit`.

        The statistics of what the editor saw go back too where the last edits do, in the session that made them;
        otherwise they stay.

        Returns their facts. Raises InputError for numbers that are not in force.
        """
        numbers = batches or tuple(number for number in self._past.last if number in self.batches)
        if not numbers:
            known = f"; name batches of {spans(sorted(self.batches))}" if self.batches else ""
            raise InputError(f"there is nothing to take back{known}.")
        self.deltas = self._past.undo(numbers)
        if min(numbers) in self._states and not any(number > min(numbers) for number in self.batches):
            self.state, self._stride = self._states[min(numbers)]
        return tuple(one for number in sorted(set(numbers)) for one in self._past.facts[number])

    @property
    def batches(self) -> dict[int, list[EditRecord]]:
        """The batches in force by number, each with its facts."""
        return self._past.batches

    @property
    def facts(self) -> list[EditRecord]:
        """All facts in force, in the order they were written."""
        return [one for facts in self.batches.values() for one in facts]

    # ------------------------------------------------------------------------------------------ files

    def save(self, folder: str | Path) -> Path:
        """Writes networks, edits and history to a new folder, or to the one that this session was saved to before.

        The folder is a workdir: `launch.py --mode=undo|eval|export|generate --workdir=FOLDER` work on it. Raises
        InputError where something else lies there.
        """
        made = self.state, self.deltas, self.base, self._past.ledger, self._past.facts
        files.write(Path(folder), self.config, self.editor, *made, self.networks, self._stride)
        self._past.lean_on(Workdir(Path(folder)))
        return Path(folder)

    def export(self, folder: str | Path, form: str = "model") -> Path:
        """Writes the edited model to a new folder, as others load it.

        Args:
          form: model: a Hugging Face folder; deltas: the weight changes alone; lora: an adapter that PEFT loads.

        Raises InputError where something lies there, or the disk refuses.
        """
        target = Path(folder)
        exporting.write(form, self._past.folder, target, self.lm, self.editor.sites, self.deltas, self.base)
        return target

    def close(self) -> None:
        """Removes what the session keeps in the folder of temporary files; it is of no use afterwards."""
        self._past.close()

    def __repr__(self) -> str:
        facts, batches = len(self.facts), len(self.batches)
        about = f"{self.config.model.name_or_path}, {self.config.editor.name}, networks {self.networks}"
        return f"EditSession({about}, {facts} facts in {batches} batches)"

    # ------------------------------------------------------------------------------------------ inside

    @property
    def _grows(self) -> bool:
        """Whether eta is a guess: networks that were trained have learned it."""
        return self.config.editor.grow and not self.networks.startswith("trained")

    def _prepared(self, facts: Sequence[EditRecord], held: Sequence[Cue] = ()) -> Prepared:
        plan = given.batches(self.config, self.lm, facts, len(facts), held=held)
        return given.prepared(self.config, self.lm, self.base, self.editor, plan)

    def _open(self, saved: Saved) -> None:
        """Takes over what was saved; the folder itself stays as it is until `save`."""
        if saved.ledger is not None:
            ledger.check_base(saved.ledger, self.base)
        if saved.folder.networks.exists():  # merged and compacted edits have none
            self.state = nets.load(nets.file_of(str(saved.folder.path)), self.editor, self.state, self.base)
            self.networks = saved.networks
        if saved.ledger is None:
            self.deltas = edits.load(saved.folder.edits, self.editor.sites, self.base)
            self._past.begin_with(self.deltas)
        else:
            self.deltas, self._stride = self._past.take_over(saved.ledger, saved.facts), saved.stride
