"""What is done with the files of runs, without their model: comparing, reporting, revising their ledgers of edits."""

from __future__ import annotations

from emsedit_jax.run.command import Command


def run(command: Command) -> None:
    """Does what the mode says. Raises InputError where the files do not allow it."""
    if command.mode == "compare":
        from emsedit_jax.run import compare

        assert command.to is not None
        compare.run_compare(command.runs, command.to)
        return
    if command.mode == "report":
        from emsedit_jax.run import page

        page.run_report(command.workdir)
        return
    from emsedit_jax.run import revise

    if command.mode == "undo":
        revise.run_undo(command.workdir, command.batches)
        return
    if command.mode == "replay":
        revise.run_replay(command.workdir)
        return
    assert command.to is not None
    if command.mode == "merge":
        revise.run_merge(command.runs, command.to)
    else:
        revise.run_compact(command.workdir, command.to)
