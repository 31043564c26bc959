"""How every refusal is checked: one InputError, one line, with what a person needs to know in it."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from emsedit_jax.errors import InputError


@contextmanager
def refused(*named: str) -> Iterator[None]:
    """The body raises an InputError of one line that holds every one of `named`."""
    with pytest.raises(InputError) as caught:
        yield
    message = str(caught.value)
    assert "\n" not in message
    for part in named:
        assert part in message
