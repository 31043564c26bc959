"""One process of several that load a model: `python -m tests.sharded.reader PORT N I MODEL FOLDER`.

What it reads goes to `read<I>.json` in the folder: tensor -> the pieces, each as the (start, stop) of every axis.
"""

import contextlib
import json
import sys
from pathlib import Path

import jax


def main(port: str, processes: str, process: str, model: str, folder: str) -> None:
    jax.config.update("jax_num_cpu_devices", 2)
    from emsedit_jax.lm import hf
    from emsedit_jax.lm.model import load_lm
    from emsedit_jax.run import cluster

    cluster.join(cluster.Cluster(f"127.0.0.1:{port}", int(processes), int(process)))
    read: dict[str, list] = {}
    plain = hf.open_file

    class Watched:
        """An open file that notes which pieces are taken."""

        def __init__(self, file):
            self.file = file

        def __getattr__(self, name):
            return getattr(self.file, name)

        def get_tensor(self, name):
            raise AssertionError(f"{name} is read whole")

        def get_slice(self, name):
            return Piece(name, self.file.get_slice(name))

    class Piece:
        def __init__(self, name, piece):
            self.name, self.piece = name, piece

        def __getattr__(self, name):
            return getattr(self.piece, name)

        def __getitem__(self, index):
            ranges = zip(index, self.piece.get_shape(), strict=True)
            read.setdefault(self.name, []).append([one.indices(size)[:2] for one, size in ranges])
            return self.piece[index]

    @contextlib.contextmanager
    def watched(path):
        with plain(path) as file:
            yield Watched(file)

    setattr(hf, "open_file", watched)  # noqa: B010 - a stand-in of another type
    with cluster.mesh_of(1, 2 * int(processes)):
        load_lm(model)
    (Path(folder) / f"read{process}.json").write_text(json.dumps(read))


if __name__ == "__main__":
    main(*sys.argv[1:])
