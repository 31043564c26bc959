"""Rows of data sets that tests change, and how a bad one is refused."""

import copy

from emsedit_jax.data.records import load
from tests.refusals import refused


def changed(row, path, value):
    """The row with one field, `"a.b"`, set to another value, or left out where that is `...`."""
    row = copy.deepcopy(row)
    *outer, last = path.split(".")
    inner = row
    for name in outer:
        inner = inner[name]
    if value is ...:
        del inner[last]
    else:
        inner[last] = value
    return row


def refused_field(write, name, row, path, value, says):
    """A file whose second row has that field changed is refused, whole, with what is wrong with it."""
    file = write([row, changed(row, path, value)])
    advice = f". Correct the file, or the data set's name ({name}), or leave such rows out with --config."
    with refused(f"{file}: 1 bad row (counting from 0): row 1: ", says, advice):
        load(name, file, role="eval")
