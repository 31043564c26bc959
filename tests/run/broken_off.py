"""Runs that end before their time, and whether those that go on have found the same."""

from tests.run import tiny


def power_cut():
    raise KeyboardInterrupt


def counted(monkeypatch, where, name, at=0, then=power_cut):
    """Calls `then` before the call number `at` of a function; gives the list in which calls are counted."""
    original, calls = getattr(where, name), []

    def one(*args, **kwargs):
        calls.append(name)
        if len(calls) == at:
            then()
        return original(*args, **kwargs)

    monkeypatch.setattr(where, name, one)
    return calls


def same_run(mine, theirs):
    """Whether two runs have found the same, to the last bit."""
    one, other = (tiny.read(folder / "summary.json") for folder in (mine, theirs))
    for part in ("scores", "intervals", "items", "edits", "digests", "examples", "along"):
        assert one[part] == other[part]
    assert tiny.rows(mine) == tiny.rows(theirs)
    for file in ("scores.json", "edits.safetensors"):
        assert (mine / file).read_bytes() == (theirs / file).read_bytes()
