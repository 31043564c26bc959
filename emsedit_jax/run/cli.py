"""The command line: reads flags and config, and says what is wrong with them in one line."""

from __future__ import annotations

import os
import re
import runpy
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import ml_collections
from absl import flags
from absl import logging as absl_logging
from ml_collections import config_flags
from ml_collections.config_flags.config_flags import FlagOrderError

from emsedit_jax.errors import InputError, Preempted, near
from emsedit_jax.run import allocator, settings, workdir

MODES = ("train", "eval", "export", "compare", "report", "undo", "replay", "merge", "compact")
OF_A_RUN = ("eval", "export")  # what is done with a run that is there
OF_FILES = ("report", "undo", "replay", "merge", "compact")  # what is done with what it left, without the model
FORMS = ("model", "deltas", "lora")  # of an export
TO_A_FOLDER = ("export", "compare", "merge", "compact")  # what --to is for
FLAGS = ("config", "workdir", "mode", "to", "as", "batches", "cluster", "coordinator", "processes", "process")
BAD_INPUT, PREEMPTED, INTERRUPTED = 2, 75, 130  # exit codes


class Command(NamedTuple):
    """What was asked for."""

    config: ml_collections.ConfigDict  # checked and locked; empty for a comparison
    workdir: Path
    mode: str
    to: Path | None = None  # where an export or a comparison goes
    runs: tuple[Path, ...] = ()  # to be compared or merged; the first is also `workdir`
    batches: str = ""  # to be undone
    form: str = FORMS[0]  # of an export
    cluster: tuple[str, int, int] | None = None  # coordinator, processes, process; None: this process alone


def exit_code(main: Callable[[Sequence[str]], None], argv: Sequence[str]) -> int:
    """Runs `main` and gives the program's exit code; what a person did wrong becomes one line on stderr."""
    try:
        main(argv)
    except InputError as error:
        print(f"error: {_one_line(str(error))}", file=sys.stderr)
        return BAD_INPUT
    except Preempted as stop:
        print(f"stopped: {stop}", file=sys.stderr)
        return PREEMPTED
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    return 0


def asks_for_help(argv: Sequence[str]) -> bool:
    return any(arg in ("-h", "-help", "--help", "--helpfull", "--helpshort") for arg in argv[1:])


def settle(batches: int = 0) -> None:
    """What the package's programs have in common: call before the libraries are imported.

    Libraries do not chat on stderr, and freed memory is kept. One batch of thousands of facts is the exception: the
    most memory that it takes counts for more than a tenth of its time.
    """
    if batches != 1:
        allocator.keep_freed()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")  # that it found no torch, which is not needed
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    absl_logging.set_verbosity(absl_logging.ERROR)


def read(argv: Sequence[str]) -> Command:
    """Reads the command line (`argv[0]` is the program) and checks every field of the config.

    Raises:
        InputError: anything in it is wrong.
    """
    try:
        argv = flags.FLAGS.read_flags_from_files(list(argv), force_gnu=False)
        given = _config_given(argv)
        if given is not None:
            _check_overrides(argv, load_config(given))
        values = _parse(argv)
    except RecursionError:  # absl looks for names that are near, letter by letter
        raise InputError("a flag's name has thousands of letters; flags look like --name=value, see --help.") from None
    except (flags.Error, AttributeError, LookupError, OSError, TypeError, ValueError) as error:  # absl lets all through
        raise InputError(_explain(error)) from error
    return _command(values, given)


def load_config(given: str) -> ml_collections.ConfigDict:
    """What the config `FILE[:ARGS]` says, before overrides.

    Raises:
        InputError: the file is missing, or fails.
    """
    path, *args = given.split(":", 1)
    if not Path(path).is_file():
        others = [
            str(file)
            for file in sorted(Path("configs").glob("*.py"))
            if file.stem not in ("__init__", "common", "models", "smollm2", "gemma3")
        ]
        raise InputError(f"--config={path}: there is no such file.{near(path, others)}")
    try:
        config = runpy.run_path(path)["get_config"](*args)
    except InputError as error:
        raise InputError(f"--config={given}: {error}") from error
    except Exception as error:  # whatever a config file does wrong is input
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
        where = f"line {lines[-1]}: " if lines else ""
        raise InputError(f"--config={path}: {where}{type(error).__name__}: {error}") from error
    if not isinstance(config, ml_collections.ConfigDict):
        raise InputError(f"--config={path}: its get_config() must return a ml_collections.ConfigDict.")
    return config


def _parse(argv: Sequence[str]) -> flags.FlagValues:
    """The three flags' values; `argv` is needed early because each `--config.x` in it becomes a flag of its own."""
    values = flags.FlagValues()
    config_flags.DEFINE_config_file("config", None, "a config file", flag_values=values, sys_argv=list(argv))
    flags.DEFINE_string("workdir", None, "where results go", flag_values=values)
    flags.DEFINE_string("mode", MODES[0], "what to do", flag_values=values)
    flags.DEFINE_string("to", None, "where an export or a comparison goes", flag_values=values)
    flags.DEFINE_string("as", FORMS[0], "the form of an export", flag_values=values)
    flags.DEFINE_string("batches", "", "which edit batches to undo", flag_values=values)
    flags.DEFINE_bool("cluster", False, "this is one of several processes", flag_values=values)
    flags.DEFINE_string("coordinator", "", "the first process's HOST:PORT", flag_values=values)
    flags.DEFINE_integer("processes", 0, "how many there are", flag_values=values)
    flags.DEFINE_integer("process", -1, "which one this is", flag_values=values)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # ml_collections loads files in an old way
        rest = values(list(argv))
    if len(rest) > 1:
        meant = f" Did you mean --config={rest[1]}?" if rest[1].endswith(".py") else ""
        raise InputError(f"{rest[1]!r} is not a flag; flags look like --name=value, see --help.{meant}")
    return values


def _command(values: flags.FlagValues, given: str | None) -> Command:
    mode: str = values.mode
    folder: str | None = values.workdir
    if mode not in MODES:
        raise InputError(f"--mode={mode}: must be one of {', '.join(MODES)}.{near(mode, MODES)}")
    if folder is not None and not folder.strip():
        raise InputError("--workdir is empty: name a folder, or leave the flag out.")
    if mode in OF_A_RUN and folder is None:
        raise InputError(f"--mode={mode} needs --workdir=FOLDER, the folder of a run that has saved edits.")
    to: str | None = values.to
    form = str(values["as"].value)
    if form not in FORMS:
        raise InputError(f"--as={form}: must be one of {', '.join(FORMS)}.{near(form, FORMS)}")
    if form != FORMS[0] and mode != "export":
        raise InputError(f"--as={form} is the form of an export: it needs --mode=export.")
    if mode == "export" and not (to and to.strip()):
        raise InputError("--mode=export needs --to=FOLDER, where the edited model is to be written.")
    if mode not in TO_A_FOLDER and to is not None:
        raise InputError(f"--to={to} is where something new goes: it needs --mode={' or --mode='.join(TO_A_FOLDER)}.")
    if values.batches and mode != "undo":
        raise InputError(f"--batches={values.batches} says which edits to take back: it needs --mode=undo.")
    if mode in OF_FILES:
        return _of_files(mode, folder or "", to, values.batches, given)
    if mode == "compare":
        return _comparison(folder or "", to, given)
    if given is not None:
        config = values.config
        path = Path(folder) if folder is not None else _new_folder(Path(given.split(":", 1)[0]).stem)
    elif mode in OF_A_RUN and folder is not None:
        path = Path(folder)
        config = workdir.saved_config(path)
    else:
        raise InputError("--config=FILE is missing, for instance --config=configs/quickstart.py; see --help.")
    settings.check(config)
    return Command(config, path, mode, Path(to) if to else None, cluster=_cluster(values, mode), form=form)


def _cluster(values: flags.FlagValues, mode: str) -> tuple[str, int, int] | None:
    """How this process finds the others of its run, if there are others."""
    coordinator, processes, process = values.coordinator, values.processes, values.process
    if not coordinator and (processes or process != -1):
        raise InputError("--processes and --process need --coordinator=HOST:PORT, the address of the first process.")
    if coordinator and not 0 <= process < processes:
        raise InputError(
            f"--coordinator needs --processes=N and --process=I with I from 0 to N - 1, not {processes} and {process}."
        )
    if not coordinator and not values.cluster:
        return None
    if mode == "export":
        raise InputError("--mode=export is the work of one process: leave the flags of the cluster out.")
    return coordinator, processes, process


def _comparison(folders: str, to: str | None, given: str | None) -> Command:
    paths = tuple(Path(name.strip()) for name in folders.split(",") if name.strip())
    if given is not None:
        raise InputError("--mode=compare takes runs as they were made: leave --config out, name them with --workdir.")
    if len(paths) < 2:
        raise InputError("--mode=compare needs --workdir=FOLDER,FOLDER,... of two finished runs or more.")
    if to is not None and not to.strip():
        raise InputError("--to is empty: name a folder, or leave the flag out.")
    target = Path(to) if to else _new_folder("compare")
    return Command(ml_collections.ConfigDict().lock(), paths[0], "compare", target, runs=paths)


def _of_files(mode: str, folders: str, to: str | None, batches: str, given: str | None) -> Command:
    """What is done with the files of runs, one or two."""
    paths = tuple(Path(name.strip()) for name in folders.split(",") if name.strip())
    wanted = 2 if mode == "merge" else 1
    if given is not None:
        raise InputError(f"--mode={mode} takes runs as they were made: leave --config out, name them with --workdir.")
    if len(paths) != wanted:
        example = "FOLDER,FOLDER, two runs that are" if wanted == 2 else "FOLDER, the run that is"
        raise InputError(f"--mode={mode} needs --workdir={example} meant.")
    if mode == "undo" and not batches.strip():
        raise InputError("--mode=undo needs --batches=N,N-N, the batches to take back; 9- means from the ninth on.")
    if mode in TO_A_FOLDER and not (to and to.strip()):
        raise InputError(f"--mode={mode} needs --to=FOLDER, where the new edits are to be written.")
    empty = ml_collections.ConfigDict().lock()
    return Command(empty, paths[0], mode, Path(to) if to else None, runs=paths, batches=batches)


def _new_folder(name: str) -> Path:
    """runs/<name>-<time>, with a number behind it where that is taken."""
    plain = Path("runs") / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    folder, number = plain, 2
    while folder.exists():
        folder, number = plain.with_name(f"{plain.name}-{number}"), number + 1
    return folder


def _config_given(argv: Sequence[str]) -> str | None:
    """The value of `--config`, `FILE[:ARGS]`; the last one counts, as with any flag."""
    given = None
    for place, arg in enumerate(argv[1:], start=1):
        if arg == "--":
            break
        if arg in ("-config", "--config"):
            given = argv[place + 1] if place + 1 < len(argv) else ""
        elif match := re.match(r"--?config=(.*)", arg, re.DOTALL):
            given = match.group(1)
    return given


def _overrides(argv: Sequence[str]) -> list[str]:
    """The fields that `--config.FIELD...` flags name."""
    found = (re.match(r"--?(?:no)?config\.([^=]*)", arg) for arg in argv[1:])
    return [match.group(1) for match in found if match]


def _check_overrides(argv: Sequence[str], config: ml_collections.ConfigDict) -> None:
    known = [name for name, _ in settings.flatten(config)]
    for name in _overrides(argv):
        if any(field.startswith(f"{name}.") for field in known):
            raise InputError(f"--config.{name} is a group of fields; set each as --config.{name}.FIELD=VALUE.")
        if name not in known:
            raise InputError(f"--config.{name}: there is no such field in this config.{near(name, known)}")


def _explain(error: Exception) -> str:
    """One line from what the flag libraries raise, in the words of the field where one is at fault."""
    text = _one_line(str(error))
    if isinstance(error, flags.UnrecognizedFlagError):
        if error.flagname.startswith("config."):
            return f"--{error.flagname} overrides a field of a config, so name the file before it with --config=FILE."
        return f"--{error.flagname}: there is no such flag.{_flags_near(error.flagname)}"
    if isinstance(error, FlagOrderError):
        return "--config=FILE must stand before the --config.FIELD=VALUE flags that override its fields."
    if match := re.match(r"flag --config\.([\w.]+)=(.*?): ", text):
        return settings.fault(match.group(1), match.group(2))
    return text.removeprefix("ERROR:: ")


def _flags_near(name: str) -> str:
    """The flag, or the field by its last part, that may have been meant."""
    fields = [f"config.{field}" for field in settings.FIELDS if field.rpartition(".")[2] == name]
    return near(f"config.{name}", fields) if fields else near(name, FLAGS)


def _one_line(text: str) -> str:
    return " ".join(text.split())
