"""The README's Python example runs as it stands there."""

import re
import textwrap
from pathlib import Path

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def test_python_example(capsys):
    found = re.search(r"^In Python:\n\n((?:    .*\n|\n)+)", README, re.MULTILINE)
    assert found
    names: dict = {}
    exec(compile(textwrap.dedent(found[1]), "README.md", "exec"), names)
    assert "Paris" in capsys.readouterr().out
    assert names["logits"].shape == (*names["asked"]["input_ids"].shape, 49152)
    assert str(names["logits"].dtype) == "float32"
