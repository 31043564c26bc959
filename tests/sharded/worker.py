"""One process of several that repeat a recorded run: `python -m tests.sharded.worker PORT N I CASE MESH FOLDER`.

Each step begins with what the safetensors file `begun` of the folder says; the first process writes the edits and the
shift that come of it to `found`, with the scores of the run from end to end.
"""

import itertools
import sys
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
from safetensors.numpy import load_file, save_file


def key(place, number: int) -> str:
    """Where a file has a leaf of what belongs to a step."""
    return f"{place}/{number}"


def leaves(tree) -> Iterator[tuple[int, np.ndarray]]:
    """The tree's leaves with their numbers, as files take them."""
    return enumerate(np.asarray(leaf) for leaf in jax.tree.leaves(tree))


def main(port: str, processes: str, process: str, name: str, mesh: str, folder: str) -> None:
    jax.config.update("jax_num_cpu_devices", 2)
    from emsedit_jax import sharding
    from emsedit_jax.edit.step import no_edit
    from emsedit_jax.run import cluster
    from tests.parity import golden, ours, test_end_to_end
    from tests.sharded import test_golden

    cluster.join(cluster.Cluster(f"127.0.0.1:{port}", int(processes), int(process)))
    case, begun = golden.load(name), load_file(Path(folder) / "begun")
    editor = test_end_to_end.editor_of(case)
    tree = jax.tree.structure((no_edit(editor.sites), test_end_to_end.initial_state(case, editor)))
    found, iters = {}, range(editor.iters)
    data, model = map(int, mesh.split("x"))
    with cluster.mesh_of(data, model):
        steps = [(phase, j, i) for phase, plan in ours.plans(case).items() for j in range(len(plan)) for i in iters]
        for place in itertools.starmap(test_golden.Place, steps):
            given = [begun.get(key(place, number)) for number in range(tree.num_leaves)]
            if given[0] is None:
                continue  # an editor that does not learn has no batches to train on
            came = test_golden.over_devices(case, place, tree.unflatten(given))
            for number, leaf in enumerate(jax.tree.leaves(came)):
                found[key(place, number)] = sharding.host(leaf)
        scores = test_end_to_end.run(case).scores
    if sharding.is_first():
        save_file(found | scores, Path(folder) / "found")


if __name__ == "__main__":
    main(*sys.argv[1:])
