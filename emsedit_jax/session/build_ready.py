"""Trains the networks that come with the package: `python -m emsedit_jax.session.build_ready`.

On the facts that come with the package too, as `EditSession.train()` does; the files go where `ready` looks for them.
"""

from __future__ import annotations

from emsedit_jax.lm.model import load_lm
from emsedit_jax.run import networks
from emsedit_jax.session import ready
from emsedit_jax.session.session import EditSession


def main() -> None:
    ready.FOLDER.mkdir(exist_ok=True)
    for model, known in ready.READY.items():
        for editor, name in known.networks.items():
            session = EditSession(ready.config_of(model, editor, {}), load_lm(model))
            session.train()
            networks.save(ready.FOLDER / name, session.editor, session.state, session.base)
            print(f"{ready.FOLDER / name}: {(ready.FOLDER / name).stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
