"""Texts tokenised in slices are those tokenised in one go."""

import threading

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.experimental import multihost_utils

from emsedit_jax.run import slices

ROWS = st.lists(st.lists(st.integers(0, 2**31 - 1), max_size=5), max_size=9)


class Calls:
    """A tokenizer that gives letters' numbers, and remembers how many texts it was asked for."""

    def __init__(self):
        self.asked: list[int] = []

    def __call__(self, texts, **kwargs):
        self.asked.append(len(texts))
        ids = [list(map(ord, text)) for text in texts]
        mask = {"special_tokens_mask": [[0] * len(row) for row in ids]} if kwargs.get("mask") else {}
        return {"input_ids": ids, **mask}


@given(st.lists(ROWS, max_size=4))
def test_packed_rows_come_back_in_their_order(parts):
    assert slices.unpacked([slices.packed(rows) for rows in parts]) == [row for rows in parts for row in rows]


@given(st.integers(0, 50), st.integers(1, 9))
def test_every_thing_is_one_processs_own(length, count):
    whole = list(range(length))
    parts = [whole[slices.own(length, count, index)] for index in range(count)]
    assert [one for part in parts for one in part] == whole
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_one_process_asks_the_tokenizer_itself():
    tokenizer = Calls()
    assert slices.shared(tokenizer) is tokenizer


@pytest.mark.parametrize("texts", [["a", "", "bcd", "efgh", "i"], ["a"]])
def test_three_processes_tokenise_a_slice_each_and_get_all(texts, monkeypatch):
    count, index = 3, threading.local()
    meet, sent = threading.Barrier(count), {}

    def gather(one):
        sent[index.value] = np.asarray(one)
        meet.wait(10)
        found = np.stack([sent[i] for i in range(count)])
        meet.wait(10)
        return found

    monkeypatch.setattr(jax, "process_count", lambda: count)
    monkeypatch.setattr(jax, "process_index", lambda: index.value)
    monkeypatch.setattr(multihost_utils, "process_allgather", gather)
    tokenizers, found = [Calls() for _ in range(count)], {}

    def process(i):
        index.value = i
        found[i] = slices.shared(tokenizers[i])(texts, mask=True)

    threads = [threading.Thread(target=process, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    for i in range(count):
        assert found[i] == Calls()(texts, mask=True)
    asked = [one.asked for one in tokenizers]
    assert asked == ([[1], [2], [2]] if len(texts) == 5 else [[1], [1], [1]])
