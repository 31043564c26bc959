"""Being asked to stop; whole runs that are asked to are in `tests/faults` and `tests/sharded`."""

import os
import signal

import jax
import pytest

from emsedit_jax.errors import Preempted
from emsedit_jax.run import stopping


def test_one_process_stops_at_the_next_place(capfd):
    with stopping.heeded():
        stopping.poll()
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Preempted):
            stopping.poll()
    assert "asked to stop" in capfd.readouterr().err


def test_several_processes_stop_where_all_have_come_to(monkeypatch):
    places = []

    def is_reached(place):
        places.append(place)
        return len(places) == 3

    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(stopping.multihost_utils, "reached_preemption_sync_point", is_reached)
    stopping.poll()
    assert not stopping.all_asked()
    with pytest.raises(Preempted):
        stopping.poll()
    assert places == list(range(places[0], places[0] + 3))  # every call is a place of its own, alike in all processes
