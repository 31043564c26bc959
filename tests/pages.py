"""The README and the pages of docs/ as tests see them: blocks of code with their marks, commands, links, names."""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.run import tiny

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
TEXTS = {str(page.relative_to(ROOT)): page.read_text(encoding="utf-8") for page in PAGES}

_FENCE = re.compile(r"(?:^<!-- (?P<mark>.*?) -->\n)?^```(?P<lang>\w*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
_INDENTED = re.compile(r"(?:^ {4}.*\n)+", re.MULTILINE)
_LINK = re.compile(r"\[[^\]\n]*\]\(([^)\s]+)\)")
_SPAN = re.compile(r"`([^`]+)`")
_PATH = re.compile(r"(?:emsedit_jax|configs|tests|docs|benchmarks|examples|\.ci)/[\w./-]+")


class Block(NamedTuple):
    """A fenced block; `mark` is the comment before it: `run`, `run, goes on`, `file: NAME`."""

    lang: str
    mark: str
    code: str


def blocks(text: str) -> list[Block]:
    return [Block(found["lang"], found["mark"] or "", found["code"]) for found in _FENCE.finditer(text)]


def programs(text: str) -> list[str]:
    """The Python blocks that are to be run; one that goes on is joined to the one before."""
    found: list[str] = []
    for block in blocks(text):
        if block.mark == "run, goes on":
            found[-1] += block.code
        elif block.mark == "run":
            found.append(block.code)
    return found


def on_tiny(code: str) -> str:
    """The same with the tiny recorded Llama in place of the real model."""
    return code.replace('"smollm2-135m"', repr(str(tiny.MODEL)))


def prose(text: str) -> str:
    """The text without its code blocks."""
    return _INDENTED.sub("\n", _FENCE.sub("", text))


def spans(text: str) -> list[str]:
    """What stands between backticks, outside of code blocks; on one line."""
    return [" ".join(found.split()) for found in _SPAN.findall(prose(text))]


def links(text: str) -> list[str]:
    return _LINK.findall(_SPAN.sub("", prose(text)))


def named_paths(text: str) -> set[str]:
    """Files and folders of the repository that are named between backticks."""
    found = set()
    for span in spans(text):
        if match := _PATH.match(span):
            whole = span == match[0] or span[match.end()] in ":`, " or span.startswith(f"{match[0]}:")
            found |= {match[0]} if whole else set()
    return found


def anchors(text: str) -> set[str]:
    """What its headings are called in links."""
    found = set()
    for heading in re.findall(r"^#+ (.*)$", prose(text), re.MULTILINE):
        plain = re.sub(r"[^\w\s-]", "", heading.replace("`", "")).strip().lower()
        found.add(re.sub(r"[-\s]+", "-", plain))
    return found


def commands(text: str, program: str) -> list[list[str]]:
    """The arguments of every command line that calls `program`; loops over words are gone through."""
    found = [span.split(program, 1)[1] for span in spans(text) if program in span]
    for block in [block.code for block in blocks(text)] + _INDENTED.findall(_FENCE.sub("", text)):
        found += [line.split(program, 1)[1] for line in _lines(block) if program in line]
    return [_words(line) for line in found]


def _lines(block: str) -> Iterator[str]:
    """A block's command lines, each for every choice of its loops' words."""
    whole = re.sub(r"\\\n|\n\s+(?=--)", " ", block)  # a folded text of YAML goes on without a backslash
    loops = [[(name, word) for word in words.split()] for name, words in re.findall(r"for (\w+) in ([^;]+);", whole)]
    for choice in itertools.product(*loops):
        chosen = dict(choice)
        for line in whole.splitlines():
            yield re.sub(r"\$(\w+)", lambda found, chosen=chosen: chosen.get(found[1], found[0]), line)


def _words(line: str) -> list[str]:
    line = line.rstrip().removesuffix('"') if line.count('"') % 2 else line  # the end of a quoted command
    return shlex.split(line, comments=True)
