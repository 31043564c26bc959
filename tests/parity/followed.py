"""How far each recorded run is to be followed; what is not is skipped by name, never passed."""

from __future__ import annotations

import pytest

from tests.parity.golden import Case

# Where the published program's defects enter, by editor, for runs to be followed only until then. Every other stage is
# fed with recorded inputs, so what it must give is right whatever happened before it.
DEFECTIVE = {
    "ultraedit": ("shift", "shift of the last micro-batch's rows"),
    "rledit": ("module gradient", "gradient of the locality loss"),
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
    """Skips the test, with the case's name and the reason, where the stage is not to be compared."""
    if reason := not_followed(case, stage):
        pytest.skip(f"{case.name}, {stage}: {reason}")
