"""The command line: reads flags and config, and says what is wrong with them in one line."""

from __future__ import annotations

import os
import re
import runpy
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import ml_collections
from absl import flags
from absl import logging as absl_logging
from ml_collections import config_flags
from ml_collections.config_flags.config_flags import FlagOrderError

from emsedit_jax.errors import InputError, Preempted, near
from emsedit_jax.run import allocator, command, settings
from emsedit_jax.run.command import Command

BAD_INPUT, PREEMPTED, INTERRUPTED = 2, 75, 130  # exit codes


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
        values = _parse(argv, given)
    except RecursionError:  # absl looks for names that are near, letter by letter
        raise InputError("a flag's name has thousands of letters; flags look like --name=value, see --help.") from None
    except (flags.Error, AttributeError, LookupError, OSError, TypeError, ValueError) as error:  # absl lets all through
        raise InputError(_explain(error)) from error
    return command.of(values, given)


def load_config(given: str) -> ml_collections.ConfigDict:
    """What the config `FILE[:ARGS]` says, before overrides.

    Raises:
        InputError: the file is missing, or fails.
    """
    path, *args = given.split(":", 1)
    if not path.strip():
        raise InputError("--config names no file; name one, for instance --config=configs/quickstart.py; see --help.")
    if Path(path).is_dir():
        raise InputError(f"--config={path} is a folder; name a file in it, for instance configs/quickstart.py.")
    if not Path(path).is_file():
        others = [
            str(file)
            for file in sorted(Path("configs").glob("*.py"))
            if file.stem not in ("__init__", "common", "models", "smollm2", "gemma3")
        ]
        raise InputError(f"--config={path}: there is no such file.{near(path, others, cutoff=0.8)}")
    try:
        defined = runpy.run_path(path)
        if "get_config" not in defined:
            raise InputError("it defines no get_config(), so it is no config; take one of configs/ (docs/CONFIGS.md).")
        config = defined["get_config"](*args)
    except InputError as error:
        raise InputError(f"--config={given}: {error}") from error
    except Exception as error:  # whatever a config file does wrong is input
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
        where = f"line {lines[-1]}: " if lines else ""
        raise InputError(f"--config={path}: {where}{type(error).__name__}: {error}") from error
    if not isinstance(config, ml_collections.ConfigDict):
        raise InputError(f"--config={path}: its get_config() must return a ml_collections.ConfigDict.")
    return config


def _parse(argv: Sequence[str], given: str | None) -> flags.FlagValues:
    """The flags' values; `argv` is needed early because each `--config.x` in it becomes a flag of its own."""
    values = flags.FlagValues()
    config_flags.DEFINE_config_file("config", None, "a config file", flag_values=values, sys_argv=list(argv))
    command.define(values)
    if given is None:
        command.define_mesh(values)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # ml_collections loads files in an old way
        rest = values(list(argv))
    if len(rest) > 1:
        meant = f" Did you mean --config={rest[1]}?" if rest[1].endswith(".py") else ""
        raise InputError(f"{rest[1]!r} is not a flag; flags look like --name=value, see --help.{meant}")
    return values


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
            raise InputError(f"--config.{name}: {_unknown(name, known, config)}")


def _unknown(name: str, known: Sequence[str], config: ml_collections.ConfigDict) -> str:
    """What to say of a field that the config does not have."""
    if name == "editor.eta":
        return "there is no such field; eta, the length of an edit step, is --config.editor.lr."
    group, _, field = name.partition(".")
    have = [editor for editor, fields in settings.EDITORS.items() if group == "editor" and field in fields]
    if have and "editor" in config:
        theirs = f"{', '.join(have)} {'have' if len(have) > 1 else 'has'}"
        return f"{config.editor.name} has no such field, but {theirs}; choose one with --config=FILE:editor=NAME."
    return f"there is no such field in this config.{near(name, known)}"


def _explain(error: Exception) -> str:
    """One line from what the flag libraries raise, in the words of the field where one is at fault."""
    text = _one_line(str(error))
    if isinstance(error, flags.UnrecognizedFlagError):
        if error.flagname.startswith("config."):
            return command.unnamed(error.flagname)
        return f"--{error.flagname}: there is no such flag.{_flags_near(error.flagname)}"
    if isinstance(error, FlagOrderError):
        return "--config=FILE must stand before the --config.FIELD=VALUE flags that override its fields."
    if match := re.match(r"flag --config\.([\w.]+)=(.*?): ", text):
        return settings.fault(match.group(1), match.group(2))
    if match := re.match(r"flag --(\w+)=(.*?): ", text):
        kind = {"port": "a whole number", "processes": "a whole number", "process": "a whole number"}
        return f"--{match.group(1)}={match.group(2)}: must be {kind.get(match.group(1), 'true or false')}."
    if match := re.search(r"Missing value for flag -*([\w.]+)", text):
        return f"--{match.group(1)} has no value; write --{match.group(1)}=VALUE, see --help."
    return text.removeprefix("ERROR:: ")


def _flags_near(name: str) -> str:
    """The flag, or the field by its last part, that may have been meant."""
    fields = [f"config.{field}" for field in settings.FIELDS if field.rpartition(".")[2] == name]
    return near(f"config.{name}", fields) if fields else near(name, command.FLAGS)


def _one_line(text: str) -> str:
    return " ".join(text.split())
