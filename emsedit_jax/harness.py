"""Edited models for lm-evaluation-harness, whose tasks all run on a run's edits; see docs/HARNESS.md.

    python -m emsedit_jax.harness --workdir=RUN --tasks=lambada_openai,piqa

In Python `of_run("RUN")` or `Harness(lm, sites, deltas)` is a model that `lm_eval.simple_evaluate` takes. Where this
module is imported, the harness also knows it as `emsedit_jax`, with `workdir=RUN` among its arguments.
"""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

try:
    from lm_eval.api.instance import Instance
    from lm_eval.api.model import TemplateLM
    from lm_eval.api.registry import register_model
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window, simple_parse_args_string
    from tqdm import tqdm
except ImportError as error:
    words = f"emsedit_jax.harness needs lm-evaluation-harness ({error}): pip install -e '.[eval]' in the clone"
    if __name__ == "__main__":
        sys.exit(f"error: {words}")
    raise ImportError(words) from error

from emsedit_jax.data.tokens import TokenItem
from emsedit_jax.errors import InputError, near
from emsedit_jax.lm.generate import GREEDY, Sampling
from emsedit_jax.lm.model import LM
from emsedit_jax.measure.edited import Edited
from emsedit_jax.measure.judge import judge
from emsedit_jax.measure.prefixes import PrefixStore
from emsedit_jax.measure.until import said_until
from emsedit_jax.run import anchor, cli, cluster, tasks, together, workdir
from emsedit_jax.run.main import use_compile_cache
from emsedit_jax.run.prepare import say
from emsedit_jax.run.restore import restore
from emsedit_jax.run.workdir import Workdir
from emsedit_jax.types import Deltas, Sites

BATCH_TOKENS = 2048  # of a pass, about
LONGEST = 2048  # tokens of a prompt with what is behind it, unless the model takes fewer
NEW_TOKENS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")  # names of the same
MOST_NEW = 256  # where a task does not say


@register_model("emsedit_jax")
class Harness(TemplateLM):
    """A model, with edits or without, as the harness asks models."""

    tokenizer: Any

    def __init__(
        self,
        lm: LM,
        sites: Sites = (),
        deltas: Deltas = (),
        *,
        max_length: int = LONGEST,
        batch_tokens: int = BATCH_TOKENS,
        seed: int = 0,
        about: Mapping[str, Any] | None = None,
    ):
        """
        Args:
          sites, deltas: the edits; without them the model is asked as it is.
          max_length: longer prompts lose their beginning. At most what the model takes.
          batch_tokens: of a pass, about.
          seed: of what tasks have drawn.
          about: what the harness's results are to say of the model.
        """
        super().__init__()
        if len(sites) != len(deltas):
            raise InputError(
                f"{len(deltas)} deltas are given for {len(sites)} groups of sites; give both as they are loaded."
            )
        self.tokenizer = lm.tokenizer
        self.max_length = min(max_length, lm.config.max_length)
        self._model = Edited(lm.config, sites, lm.params, deltas, PrefixStore(lm.config, sites, lm.params, 0))
        self._batch_tokens, self._seed, self._about = batch_tokens, seed, dict(about or {})

    @classmethod
    def create_from_arg_string(cls, arg_string: str, additional_config: dict | None = None) -> Harness:
        """From `lm_eval`'s `--model_args workdir=RUN`."""
        return cls.create_from_arg_obj(simple_parse_args_string(arg_string), additional_config)

    @classmethod
    def create_from_arg_obj(cls, arg_dict: dict[str, Any], additional_config: dict | None = None) -> Harness:
        """The same, read. Batch sizes and devices are not taken from the harness. Raises InputError."""
        known = [name if name != "path" else "workdir" for name in inspect.signature(of_run).parameters]
        for name in arg_dict:
            if name not in known:
                raise InputError(f"model_args: {name} is not known.{near(name, known)} Known: {', '.join(known)}.")
        if "workdir" not in arg_dict:
            raise InputError("model_args: workdir=RUN is missing, the folder of a run that has saved edits.")
        return of_run(
            str(arg_dict["workdir"]), **{name: value for name, value in arg_dict.items() if name != "workdir"}
        )

    def get_model_info(self) -> dict[str, Any]:
        """What results say of the model."""
        return self._about

    # -------------------------------------------------------------------------------------- texts

    @property
    def eot_token_id(self) -> int:
        return self.tokenizer.eos_token_id

    @property
    def prefix_token_id(self) -> int:
        """What stands in front where nothing does."""
        return self.eot_token_id if self.tokenizer.bos_token_id is None else self.tokenizer.bos_token_id

    @property
    def tokenizer_name(self) -> str:
        return str(self.tokenizer.name_or_path).replace("/", "__")

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        """Token ids, behind those that the tokenizer puts in front unless the text has them already."""
        if add_special_tokens is None:
            add_special_tokens = not string.startswith(self.tokenizer.decode([self.prefix_token_id]))
        return self.tokenizer(string, add_special_tokens=add_special_tokens)["input_ids"]

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """A conversation as the model was trained to read it. Raises InputError where nothing says how."""
        if not self.tokenizer.chat_template:
            raise InputError("this model's tokenizer has no chat template: leave apply_chat_template out.")
        return self.tokenizer.apply_chat_template(
            chat_history,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=not add_generation_prompt,
        )

    # -------------------------------------------------------------------------------------- questions

    def _loglikelihood_tokens(
        self, requests: list[tuple[Any, list[int], list[int]]], disable_tqdm: bool = False, **kwargs: Any
    ) -> list[tuple[float, bool]]:
        """(log-probability, whether greedy decoding says it) of each continuation; an empty one is certain."""
        found = [(0.0, True)] * len(requests)
        places = [m for m, (_, _, continuation) in enumerate(requests) if continuation]
        items = [self._item(*requests[m][1:]) for m in places]
        with tqdm(total=len(items), desc="log-likelihoods", disable=disable_tqdm) as bar:
            judged = judge(self._model, items, self._batch_tokens, bar.update)
        for m, logprob, greedy in zip(places, judged.logprob.tolist(), judged.greedy.tolist(), strict=True):
            found[m] = logprob, greedy
        for (texts, *_), answer in zip(requests, found, strict=True):
            if texts is not None:
                self.cache_hook.add_partial("loglikelihood", texts, answer)
        return found

    def _item(self, context: list[int], continuation: list[int]) -> TokenItem:
        """What is read, without the beginning that has no room. Raises InputError where the continuation has none."""
        if len(continuation) > self.max_length:
            told = (
                f"{len(continuation)} tokens are to follow a prompt, the model is asked with {self.max_length} at most"
            )
            raise InputError(f"{told}; raise max_length, or leave the task out.")
        whole = (*(context or [self.prefix_token_id]), *continuation)[-self.max_length - 1 :]
        return TokenItem(whole[:-1], tuple(continuation), len(whole) - len(continuation))

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Log-probability of each text, in windows as long as the model reads, each token predicted once."""
        windows, owners = [], []
        for m, (text,) in enumerate(one.args for one in requests):
            tokens = self.tok_encode(text, add_special_tokens=False)
            for window in get_rolling_token_windows(tokens, self.prefix_token_id, self.max_length, 1):
                windows.append((None, *make_disjoint_window(window)))
                owners.append(m)
        found = [0.0] * len(requests)
        for m, (logprob, _) in zip(owners, self._loglikelihood_tokens(windows, disable_tqdm), strict=True):
            found[m] += logprob
        for one, logprob in zip(requests, found, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", one.args, logprob)
        return found

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """What the model says after each text, up to one of its stops; requests with the same settings go together."""
        given: list[Any] = [one.args for one in requests]
        alike: dict[str, list[int]] = {}
        for m, (_, settings) in enumerate(given):
            alike.setdefault(json.dumps(settings, sort_keys=True, default=str), []).append(m)
        found = [""] * len(requests)
        with tqdm(total=len(requests), desc="generated", disable=disable_tqdm) as bar:
            for places in alike.values():
                for m, text in zip(places, self._said([given[m] for m in places], bar.update), strict=True):
                    found[m] = text
                    self.cache_hook.add_partial("generate_until", given[m], text)
        return found

    def _said(self, requests: Sequence[tuple[str, dict]], done: Callable[[int], object]) -> list[str]:
        until, limit, sampling = wanted(requests[0][1])
        room = self.max_length - limit
        if room < 1:
            raise InputError(
                f"{limit} new tokens are asked for, with prompts {self.max_length} at most; raise max_length."
            )
        prompts = [(self.tok_encode(text) or [self.prefix_token_id])[-room:] for text, _ in requests]
        return said_until(self._model, self.tokenizer, prompts, until, limit, sampling, self._seed, done)


def wanted(settings: Mapping[str, Any]) -> tuple[list[str], int, Sampling]:
    """(stops, most new tokens, how they are chosen: greedily unless a task says otherwise) of generation settings."""
    until = settings.get("until") or []
    limit = next((int(settings[name]) for name in NEW_TOKENS if settings.get(name)), MOST_NEW)
    sampling = GREEDY
    if settings.get("do_sample") and float(settings.get("temperature", 1.0)) > 0:
        top_k, top_p = int(settings.get("top_k") or 0), float(settings.get("top_p") or 1.0)
        sampling = Sampling(float(settings.get("temperature", 1.0)), top_k, top_p)
    return [until] if isinstance(until, str) else list(until), limit, sampling


def of_run(
    path: str | Path,
    *,
    unedited: bool = False,
    max_length: int = LONGEST,
    batch_tokens: int = BATCH_TOKENS,
    seed: int = 0,
) -> Harness:
    """The model of the run in the workdir `path` under its edits; `unedited`: without them.

    Raises InputError where there is no such run, or it has saved no edits.
    """
    folder = Workdir(Path(path))
    together.finish(folder.path)
    config = workdir.saved_config(folder.path)
    found = restore(config, folder)
    given = ((), ()) if unedited else (found.sites, found.deltas)
    about = {"workdir": str(path), "edited": not unedited, "weights": found.base.weights}
    return Harness(found.lm, *given, max_length=max_length, batch_tokens=batch_tokens, seed=seed, about=about)


# ------------------------------------------------------------------------------------------ the command


def main(argv: Sequence[str]) -> None:
    """Runs tasks on a run's edited model, prints the harness's table and writes its results into the workdir."""
    given = tasks.read_flags(argv)
    cli.settle()
    folder = Workdir(Path(given.workdir))
    together.finish(folder.path)
    config = workdir.saved_config(folder.path)
    anchor.check_present(folder)
    names, index = tasks.chosen([name.strip() for name in given.tasks.split(",") if name.strip()], given.include_path)
    if config.compile_cache:
        use_compile_cache()
    sizes = {"max_length": given.max_length or LONGEST, "batch_tokens": given.batch_tokens or BATCH_TOKENS}
    with cluster.mesh_of(config.mesh.data, config.mesh.model, saved=True) as words:
        if words:
            say("mesh", words)
        model = of_run(folder.path, unedited=given.unedited, **sizes)
        tasks.evaluate(model, names, index, folder, given)


if __name__ == "__main__":
    sys.exit(cli.exit_code(main, sys.argv))
