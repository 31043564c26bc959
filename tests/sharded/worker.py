"""One process of several that repeat a recorded run together: `python -m tests.sharded.worker PORT N I CASE MESH OUT`.

The first one writes the shifts, edits and scores to the safetensors file OUT.
"""

import sys

import jax
from safetensors.numpy import save_file

jax.config.update("jax_num_cpu_devices", 2)


def main(port: str, processes: str, process: str, name: str, mesh: str, out: str) -> None:
    from emsedit_jax import sharding
    from emsedit_jax.run import cluster
    from tests.parity import golden, test_end_to_end

    cluster.join(cluster.Cluster(f"127.0.0.1:{port}", int(processes), int(process)))
    data, model = map(int, mesh.split("x"))
    with cluster.mesh_of(data, model):
        found = test_end_to_end.run(golden.load(name))
        edits = found.shifts | {"final": found.deltas}
        arrays = {f"{key}/{g}": sharding.host(one) for key, edit in edits.items() for g, one in enumerate(edit)}
    if sharding.is_first():
        save_file(arrays | found.scores, out)


if __name__ == "__main__":
    main(*sys.argv[1:])
