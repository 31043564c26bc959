"""For tests that run what people are shown: in a folder of its own, and every table of the package as it was before."""

from collections.abc import Iterator

import pytest

from emsedit_jax.lm.families import FAMILIES
from emsedit_jax.meta.methods import METHODS
from emsedit_jax.run.settings import EDITORS, FIELDS


@pytest.fixture
def aside(monkeypatch, tmp_path) -> Iterator[None]:
    """Where programs are kept is a setting of the whole process, which sessions do not make here."""
    monkeypatch.setattr("emsedit_jax.session.session.use_compile_cache", lambda: None)
    monkeypatch.chdir(tmp_path)
    tables: tuple[dict, ...] = (FAMILIES, METHODS, EDITORS, FIELDS)
    before = [dict(table) for table in tables]
    yield
    for table, rows in zip(tables, before, strict=True):
        table.clear()
        table.update(rows)
