"""Every field of a config with its default: the published program's, and what this one adds."""

from __future__ import annotations

import ml_collections

from emsedit_jax.run.settings import EDITORS, TRAIN

LLAMA_SITES = ("model.layers.{11..15}.mlp.gate_proj", "model.layers.{18..24}.mlp.up_proj")


def config(editor: str = "emsedit", iters: int = 0, *, batch: bool = False) -> ml_collections.ConfigDict:
    """All fields, for one of `EDITORS`, with so many edit steps (0: the editor's own); `batch`: all edits at once."""
    found = ml_collections.ConfigDict()
    found.seed = 0
    found.num_seq = 1 if batch else 20  # edit batches in a row; in training and again in editing
    found.compile_cache = True  # keep compiled programs between runs
    found.track = ()  # of wandb and swanlab, beside the workdir's tensorboard/: who is told of a run's metrics

    found.checkpoint = ml_collections.ConfigDict()
    found.checkpoint.every = 50  # edit batches between two saved states of a run; 0: only when it is asked to stop

    found.ledger = ml_collections.ConfigDict()
    found.ledger.keep = True  # every batch's facts and weight change, in the workdir's edits/
    found.ledger.snapshot_every = 100  # batches between two copies of all edits, where going back begins; 0: none
    found.ledger.history = 0  # last batches that can be taken back, at least; files before go for a copy; 0: all

    found.dataset = ml_collections.ConfigDict()
    found.dataset.name = "worldfacts"
    found.dataset.n_edits = 20  # facts of an edit batch
    found.dataset.batch_size = 4  # prompts of a micro-batch: the unit the loss is averaged in
    found.dataset.hold = 0  # facts much alike, of those that come with the package, that each edited one leaves alone
    found.dataset.train_path = ""  # "": the rows that come with the package
    found.dataset.valid_path = ""
    found.dataset.shuffle = False  # False: file order
    found.dataset.rows = ""  # which rows of valid_path to edit, such as 4096:8192; empty: all
    found.dataset.train_rows = ""  # likewise, of train_path
    found.dataset.limit = 0  # rows read of each file; 0: all
    found.dataset.on_bad_row = "error"  # error: stop, naming all of them; skip: leave them out
    found.dataset.batch_tokens = 512  # tokens of a pass over an edit batch; a larger batch takes several: less memory

    found.model = ml_collections.ConfigDict()
    found.model.name_or_path = "smollm2-135m"  # a known name, or a local Hugging Face directory
    found.model.accept_terms = False  # of a model that has terms of use to be accepted, before it is fetched
    found.model.dtype = "auto"  # of the weights: auto, float32, bfloat16; edits are always float32
    found.model.remat = False  # gradients compute each layer again on their way back: less memory, more time
    found.model.edit_modules = LLAMA_SITES  # the published ones for Llama-3-8B

    found.mesh = ml_collections.ConfigDict()
    found.mesh.data = -1  # devices that the prompts of a pass are spread over; -1: the rest
    found.mesh.model = 1  # devices that the model's weights are spread over; -1: the rest

    found.editor = ml_collections.ConfigDict(EDITORS[editor])  # one table of defaults, listed there
    found.editor.iters = iters or found.editor.iters

    found.train = ml_collections.ConfigDict(TRAIN)  # beyond the published single update; listed there

    found.eval = ml_collections.ConfigDict()
    found.eval.examples = 5  # facts shown in the model's own words, before and after
    found.eval.max_new_tokens = 16
    found.eval.final_only = False  # score nothing but the edits after the last one: for searches
    found.eval.curve_step = 1  # editor.full_curve scores everything edited so far after so many batches, each time
    found.eval.batch_tokens = 2048  # tokens of a scoring pass
    found.eval.prefix_store_mb = 1024  # host memory for hidden states below the edit sites, which are computed once
    _further(found.eval)
    return found


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
