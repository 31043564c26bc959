"""What each stage of a recorded run needs of the package; what is not built yet is skipped by name, never passed."""

from __future__ import annotations

import json

import pytest

from emsedit_jax.data.records import READERS
from emsedit_jax.lm.config import FAMILIES
from emsedit_jax.meta.methods import METHODS
from tests.parity.golden import ROOT, Case

# Where the published program's defects enter, by editor, for runs to be followed only until then. Every other stage is
# fed with recorded inputs, so what it must give is right whatever happened before it.
DEFECTIVE = {
    "ultraedit": ("shift", "shift of the last micro-batch's rows"),
    "rledit": ("module gradient", "gradient of the locality loss"),
}


def missing_family(model: str) -> str | None:
    """The model family of a recorded model, if it is not built."""
    family = json.loads((ROOT / "models" / model / "config.json").read_text(encoding="utf-8"))["model_type"]
    return None if family in FAMILIES else f"the model family {family!r} is not built"


def missing_reader(case: Case) -> str | None:
    """The case's data set reader, if it is not built."""
    name = case.config["dataset"]["name"]
    return None if name in READERS else f"the data set reader {name!r} is not built"


def missing_editor(case: Case) -> str | None:
    """The case's editor, if it is not built."""
    name = case.config["editor"]["name"]
    return None if name in METHODS else f"the editor {name!r} is not built"


# what each stage asks of the package, besides being followed
NEEDS = {
    "micro-batches": (missing_reader,),
    "capture": (missing_reader, lambda case: missing_family(case.model_folder.name)),
    "statistics": (lambda case: missing_family(case.model_folder.name),),
    "shift": (missing_editor, lambda case: missing_family(case.model_folder.name)),
    "module gradient": (
        missing_reader,
        missing_editor,
        lambda case: missing_family(case.model_folder.name),
    ),
    "hypernet gradient": (missing_editor, lambda case: missing_family(case.model_folder.name)),
    "clipping": (),
    "optimiser": (),
    "validation": (missing_reader, missing_editor, lambda case: missing_family(case.model_folder.name)),
    "final weights": (lambda case: missing_family(case.model_folder.name),),
    "end to end": (
        missing_reader,
        missing_editor,
        lambda case: missing_family(case.model_folder.name),
    ),
}


def not_followed(case: Case, stage: str) -> str | None:
    """Why this stage of the case is not to be matched, if its JSON says so."""
    follow = case.about["follow"]
    if follow in ("all", "imitate"):  # to imitate is an option, set in ours.py
        return None
    if follow == "until_defect":
        first, what = DEFECTIVE[case.config["editor"]["name"]]
        touched = (first, "validation", "end to end") if first == "shift" else (first, "end to end")
        return f"recorded with a defect of the published program ({what})" if stage in touched else None
    if follow == "rounding_only":
        return "recorded with edits rounded to bfloat16; here they are kept apart in float32"
    raise ValueError(f"{case.name}: unknown 'follow': {follow!r}")


def require(case: Case, stage: str) -> None:
    """Skips the test, with the case's name and the reason, where the stage cannot be compared."""
    reasons = [not_followed(case, stage), *(need(case) for need in NEEDS[stage])]
    if said := [reason for reason in reasons if reason]:
        pytest.skip(f"{case.name}, {stage}: {'; '.join(said)}")
