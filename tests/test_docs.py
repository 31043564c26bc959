"""The README and the pages of docs/: their programs run, their commands are read, what they name is there."""

import doctest
import importlib
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emsedit_jax.edit import capture
from emsedit_jax.lm import decoder
from emsedit_jax.run import cli, workdir
from emsedit_jax.run.settings import FIELDS
from tests.aside import aside
from tests.pages import ROOT, TEXTS, anchors, blocks, commands, links, named_paths, on_tiny, programs, prose, spans
from tests.quick_compiles import quick_compiles

__all__ = ["aside", "quick_compiles"]

DOCTESTS = (
    "configs.common",
    "emsedit_jax.data.packing",
    "emsedit_jax.data.records",
    "emsedit_jax.data.tokens",
    "emsedit_jax.edit.sites",
    "emsedit_jax.edit.solve",
    "emsedit_jax.errors",
    "emsedit_jax.run.revise",
    "emsedit_jax.session.session",
)
ELSEWHERE = ("docs/MIGRATION.md",)  # names fields of other programs, too
PROGRAMS = {f"{name} {m}": code for name, text in TEXTS.items() for m, code in enumerate(programs(text))}
README, EDITOR = "README.md 0", "docs/EDITORS.md 0"


def run(program: str, code: str) -> dict:
    """Runs a page's program in this folder, beside the page's files; returns its names."""
    for block in blocks(TEXTS[program.split()[0]]):
        if block.mark.startswith("file: "):
            (Path.cwd() / block.mark.removeprefix("file: ")).write_text(block.code, encoding="utf-8")
    names: dict = {}
    exec(compile(code, program, "exec"), names)
    return names


# ---------------------------------------------------------------------------------------------- programs


def test_the_readme_is_two_screens_with_a_short_program():
    assert len(TEXTS["README.md"].splitlines()) <= 110
    assert len(PROGRAMS[README].splitlines()) <= 12


@pytest.mark.parametrize("program", PROGRAMS)
def test_programs_run_with_any_model(program, aside, capsys):
    names = run(program, on_tiny(PROGRAMS[program]))
    if program == EDITOR:
        check_the_new_editor(names)
    capsys.readouterr()


def check_the_new_editor(names: dict) -> None:
    """Its first step is a step of gradient descent, and it is an editor of the command line."""
    lm, places, prompts = names["lm"], names["places"], names["prompts"]
    ((prefix_md, batch),) = prompts.passes()

    @jax.jit
    @jax.grad
    def gradient(deltas, batch):
        x_ad, _ = decoder.answer_states(lm.config, places, lm.params, deltas, prefix_md, batch)
        return capture.cross_entropy(decoder.logits_Va(lm.config, lm.params, x_ad), batch)[0]

    start = names["step"].no_edit(places)
    (expected,) = jax.tree.map(lambda one: -0.01 * one, gradient(start, batch))
    editor = names["editor"]._replace(iters=1)
    (found,), _, _ = names["trajectory"].edit_batch(editor, lm.params, start, names["state"], prompts)
    np.testing.assert_allclose(found, expected, atol=1e-5 * float(jnp.abs(expected).max()))
    config = f"--config={ROOT / 'configs/zsre_llama.py'}:editor=gradient,iters=2"
    command = cli.read(["launch.py", config, "--config.dataset.valid_path=facts.json"])
    assert (command.config.editor.token, command.config.editor.iters) == ("all", 2)


@pytest.mark.long
@pytest.mark.parametrize("program", [program for program, code in PROGRAMS.items() if on_tiny(code) != code])
def test_programs_run_with_the_real_model(program, aside, capsys):
    names = run(program, PROGRAMS[program])
    said = capsys.readouterr().out
    if program == README:
        report, edited, unedited = said.rpartition("\n Lyon")
        assert "The capital of France is  -> Lyon" in report
        assert edited
        assert "Paris" in unedited
    if "logits" in names:
        assert "Paris" in said
        assert names["logits"].shape == (*names["asked"]["input_ids"].shape, 49152)
        assert str(names["logits"].dtype) == "float32"


@pytest.mark.parametrize("module", DOCTESTS)
def test_examples_in_docstrings(module, aside):
    """They run with the tiny model in place of the real one, so that what they print must not depend on it."""
    found = importlib.import_module(module)
    tests = [one for one in doctest.DocTestFinder().find(found) if one.examples]
    assert tests
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    for one in tests:
        for example in one.examples:
            example.source = on_tiny(example.source)
        told: list[str] = []
        assert runner.run(one, out=told.append, clear_globs=False).failed == 0, "".join(told)


# ---------------------------------------------------------------------------------------------- commands


@pytest.mark.parametrize("page", TEXTS)
def test_commands_are_read(page, monkeypatch):
    """Flags, fields, editors and config files are there; the files that a run would read are not looked for."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(workdir, "saved_config", lambda path: cli.load_config("configs/quickstart.py"))
    for words in commands(TEXTS[page], "python launch.py"):
        args = [re.sub(r"\$\w+", "0", word) if "process" in word else word for word in words if word != "..."]
        configs = [word.removeprefix("--config=").split(":")[0] for word in args if word.startswith("--config=")]
        if len(args) < len(words) and not configs:
            args.insert(0, "--config=configs/quickstart.py")
        if not cli.asks_for_help(["launch.py", *args]):
            cli.read(["launch.py", *args])


@pytest.mark.parametrize("page", TEXTS)
def test_programs_that_are_called_are_there(page):
    for words in commands(TEXTS[page], "python -m "):
        module, *flags = words
        assert module == "pytest" or importlib.util.find_spec(module), module
        for flag in flags:
            if match := re.fullmatch(r"--config=([\w/.]+)(?::.*)?", flag):
                assert (ROOT / match[1]).is_file()
            if module == "pytest" and flag.startswith("tests/"):
                assert (ROOT / flag).exists()


@pytest.mark.parametrize("page", TEXTS)
def test_fields_that_are_named_are_there(page):
    flags = re.findall(r"--(?:no)?config\.([a-z_]+(?:\.[a-z_]+)*)", TEXTS[page])
    sections = {name.split(".")[0] for name in FIELDS if "." in name}
    named = [one for one in map(field, spans(TEXTS[page])) if one and one.split(".")[0] in sections]
    for name in flags + ([] if page in ELSEWHERE else named):
        assert name in FIELDS or name in sections, name


def field(span: str) -> str | None:
    """`editor.lr` of `editor.lr` and of `editor.lr=1e-4`."""
    found = re.fullmatch(r"([a-z_]+\.[a-z_]+)(=\S*)?", span)
    return found[1] if found and not found[1].endswith(".json") else None


# ---------------------------------------------------------------------------------------------- links


@pytest.mark.parametrize("page", TEXTS)
def test_links_lead_somewhere(page):
    for link in links(TEXTS[page]):
        if link.startswith(("https://", "http://")):
            continue
        name, _, anchor = link.partition("#")
        target = (ROOT / page).parent / name if name else ROOT / page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target.read_text(encoding="utf-8")), link
        if page.startswith("docs/"):
            assert target.parent == ROOT / "docs", f"{link}: the site has the pages alone; name the file in backticks"


@pytest.mark.parametrize("page", TEXTS)
def test_files_that_are_named_are_there(page):
    for name in named_paths(TEXTS[page]):
        assert (ROOT / name).exists(), name


@pytest.mark.parametrize("page", TEXTS)
def test_tables_are_whole(page):
    """Every row has as many cells as its head."""
    for table in re.findall(r"(?:^\|.*\|\n)+", prose(TEXTS[page]), re.MULTILINE):
        rows = [re.sub(r"`[^`]*`|\\\|", "", row).count("|") for row in table.splitlines()]
        assert len(set(rows)) == 1, table


def test_every_page_has_its_place_on_the_site():
    nav = (ROOT / "docs/site/mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:\n")[2]
    for page in (ROOT / "docs").glob("*.md"):
        assert f": {page.name}\n" in nav, page.name


def test_the_site_is_built_and_asks_nobody_for_anything(tmp_path):
    pytest.importorskip("mkdocs", reason="mkdocs is in the optional extra 'docs'")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-f", "docs/site/mkdocs.yml"]
    quiet = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(
        [*command, "--site-dir", str(tmp_path / "site")],
        cwd=ROOT,
        env=quiet,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for page in (tmp_path / "site").glob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert not re.search(r"<(?:script|img|iframe)[^>]+src=\"?https?:|<link[^>]+stylesheet[^>]+https?:", text), (
            page.name
        )
    assert "EditSession" in (tmp_path / "site" / "API.html").read_text(encoding="utf-8")
