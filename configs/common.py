"""What every config shares: the published program's fields and defaults, and the reader of `--config=FILE:ARGS`."""

from __future__ import annotations

from collections.abc import Mapping

import ml_collections

from emsedit_jax.errors import InputError, near
from emsedit_jax.run.settings import EDITORS, TRAIN

# What may stand after the colon, with its default; the default's type is the type read. iters=0: the editor's own.
# mode: sequence (edit batches one after the other) or batch (all edits at once).
ARGS: dict[str, str | int] = {"editor": "emsedit", "iters": 0, "mode": "sequence"}
MODES = ("sequence", "batch")
LLAMA_SITES = ("model.layers.{11..15}.mlp.gate_proj", "model.layers.{18..24}.mlp.up_proj")


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    """Common defaults. `arg` is the text after the colon of `--config=FILE:editor=rledit,iters=2`.

    Raises:
        InputError: an argument or an editor that is not known.
    """
    args = parse_arg(arg)
    config = ml_collections.ConfigDict()
    config.seed = 0
    config.num_seq = 1 if args["mode"] == "batch" else 20  # edit batches in a row; in training and again in editing
    config.compile_cache = True  # keep compiled programs between runs
    config.track = ()  # of wandb and swanlab, beside the workdir's tensorboard/: who is told of a run's metrics

    config.checkpoint = ml_collections.ConfigDict()
    config.checkpoint.every = 50  # edit batches between two saved states of a run; 0: only when it is asked to stop

    config.ledger = ml_collections.ConfigDict()
    config.ledger.keep = True  # every batch's facts and weight change, in the workdir's edits/
    config.ledger.snapshot_every = 100  # batches between two copies of all edits, where going back begins; 0: none

    config.dataset = ml_collections.ConfigDict()
    config.dataset.name = "worldfacts"
    config.dataset.n_edits = 20  # facts of an edit batch
    config.dataset.batch_size = 4  # prompts of a micro-batch: the unit the loss is averaged in
    config.dataset.train_path = ""  # "": the rows that come with the package
    config.dataset.valid_path = ""
    config.dataset.shuffle = False  # False: file order
    config.dataset.rows = ""  # which rows of valid_path to edit, such as 4096:8192; empty: all
    config.dataset.train_rows = ""  # likewise, of train_path
    config.dataset.limit = 0  # rows read of each file; 0: all
    config.dataset.on_bad_row = "error"  # error: stop, naming all of them; skip: leave them out
    config.dataset.batch_tokens = 512  # tokens of a pass over an edit batch; a larger batch takes several: less memory

    config.model = ml_collections.ConfigDict()
    config.model.name_or_path = "smollm2-135m"  # a known name, or a local Hugging Face directory
    config.model.accept_terms = False  # of a model that has terms of use to be accepted, before it is fetched
    config.model.dtype = "auto"  # of the weights: auto, float32, bfloat16; edits are always float32
    config.model.remat = False  # gradients compute each layer again on their way back: less memory, more time
    config.model.edit_modules = LLAMA_SITES  # the published ones for Llama-3-8B

    config.mesh = ml_collections.ConfigDict()
    config.mesh.data = -1  # devices that the prompts of a pass are spread over; -1: the rest
    config.mesh.model = 1  # devices that the model's weights are spread over; -1: the rest

    config.editor = ml_collections.ConfigDict(EDITORS[str(args["editor"])])  # one table of defaults, listed there
    config.editor.iters = args["iters"] or config.editor.iters

    config.train = ml_collections.ConfigDict(TRAIN)  # beyond the published single update; listed there

    config.eval = ml_collections.ConfigDict()
    config.eval.examples = 5  # facts shown in the model's own words, before and after
    config.eval.max_new_tokens = 16
    config.eval.final_only = False  # score nothing but the edits after the last one: for searches
    config.eval.curve_step = 1  # editor.full_curve scores everything edited so far after so many batches, each time
    config.eval.batch_tokens = 2048  # tokens of a scoring pass
    config.eval.prefix_store_mb = 1024  # host memory for hidden states below the edit sites, which are computed once
    _further(config.eval)
    return config


def _further(section: ml_collections.ConfigDict) -> None:
    """What is measured beside ES, GS and LS, before and after."""
    section.further = True  # False: none of these
    section.generated = 100  # facts, from all along the sequence, whose answers are generated; 0: none
    section.per_criterion = 0  # further questions of a fact, of each sort (RippleEdits, MQuAKE, EasyEdit); 0: all
    section.fluency = 10  # facts whose prompts are continued at length; 0: none
    section.fluency_tokens = 100
    section.text_path = ""  # running text for the perplexity; empty: the text that comes with the package
    section.ability_path = ""  # folder of sst2.jsonl, mrpc.jsonl, cola.jsonl, rte.jsonl, mmlu.jsonl, nli.jsonl
    section.ability_tasks = ()  # of these; empty: all
    section.ability_items = 100  # of each
    section.ability_shots = 0  # answered items before each
    section.glue_step = 0  # ability also after every so many batches; 0: only before and after all


def eta(known: Mapping[tuple[str, int], float], editor: str, iters: int) -> float:
    """The initial eta that is known for so many edit steps, or for the nearest number of them."""
    steps = [number for name, number in known if name == editor]
    return known[editor, min(steps, key=lambda number: abs(number - iters))]


def parse_arg(arg: str) -> dict[str, str | int]:
    """Reads `key=value,key=value` into `ARGS`' types.

    Raises:
        InputError: a part without `=`, an unknown key, a value of another type, or an unknown editor.
    """
    args = dict(ARGS)
    for part in filter(None, (part.strip() for part in arg.split(","))):
        key, given, value = part.partition("=")
        if not given:
            raise InputError(f"config argument {part!r} is not of the form key=value, for instance editor=ultraedit.")
        if key not in ARGS:
            raise InputError(f"unknown config argument {key!r}; known: {', '.join(ARGS)}.{near(key, ARGS)}")
        try:
            args[key] = type(ARGS[key])(value)
        except ValueError:
            raise InputError(f"config argument {part!r}: {key} must be a whole number.") from None
    for name, known in (("editor", tuple(EDITORS)), ("mode", MODES)):
        chosen = str(args[name])
        if chosen not in known:
            raise InputError(f"unknown {name} {chosen!r}; known: {', '.join(known)}.{near(chosen, known)}")
    return args
