"""What a command line asks for: the flags, and what of them goes with what."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import ml_collections
from absl import flags

from emsedit_jax.errors import InputError, near
from emsedit_jax.run import settings, together, workdir

MODES = (
    *("train", "edit", "generate", "serve", "eval", "export", "compare", "report"),
    *("undo", "replay", "merge", "compact"),
)
OF_A_RUN = ("generate", "eval", "export")  # what is done with a run that is there
BY_HAND = ("edit", "serve")  # what may go on with such a run, or begin
OF_FILES = ("report", "undo", "replay", "merge", "compact")  # what is done with what it left, without the model
FORMS = ("model", "deltas", "lora")  # of an export
TO_A_FOLDER = ("export", "compare", "merge", "compact")
ONLY_FOR = {  # a flag: the modes that take it, and what it is
    "to": (TO_A_FOLDER, "where something new goes"),
    "as": (("export",), "the form of an export"),
    "batches": (("undo",), "which edits to take back"),
    "facts": (("edit",), "the file of facts to write"),
    "yes": (("edit",), "the answer to what would be asked"),
    "prompt": (("generate",), "a text to go on with"),
    "host": (("serve",), "the address of a page"),
    "port": (("serve",), "the port of a page"),
    "token": (("serve",), "what a page asks for"),
}
ADDRESS = r"([^\s:/\[\]]+|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}"  # a host, or an IPv6 address in brackets, and a port
TOKEN = r"[A-Za-z0-9_-]{16,200}"  # what may stand in an address and in a cookie, and is not soon guessed

NO_CONFIG = ml_collections.ConfigDict().lock()


class Door(NamedTuple):
    """Where a page is served, and to whom."""

    host: str = "127.0.0.1"
    port: int = 8765  # 0: one that is free
    token: str = ""  # "": one is drawn


class Command(NamedTuple):
    """What was asked for."""

    config: ml_collections.ConfigDict  # checked and locked; empty where there is none
    workdir: Path
    mode: str
    to: Path | None = None  # where an export or a comparison goes
    runs: tuple[Path, ...] = ()  # to be compared or merged; the first is also `workdir`
    batches: str = ""  # to be undone
    form: str = FORMS[0]  # of an export
    cluster: tuple[str, int, int] | None = None  # coordinator, processes, process; None: this process alone
    facts: str = ""  # the file of facts to be edited in
    prompts: tuple[str, ...] = ()
    yes: bool = False  # nothing is to be asked
    door: Door = Door()  # of a page
    mesh: Mapping[str, int] | None = None  # of a saved config, what flags say of it; None: of one that was named


def define(values: flags.FlagValues) -> None:
    """Adds all flags but `config`, which needs the command line early."""
    flags.DEFINE_string("workdir", None, "where results go", flag_values=values)
    flags.DEFINE_string("mode", MODES[0], "what to do", flag_values=values)
    flags.DEFINE_string("to", None, "where an export or a comparison goes", flag_values=values)
    flags.DEFINE_string("as", FORMS[0], "the form of an export", flag_values=values)
    flags.DEFINE_string("batches", "", "which edit batches to undo", flag_values=values)
    flags.DEFINE_string("facts", "", "the file of facts to write", flag_values=values)
    flags.DEFINE_multi_string("prompt", [], "a text to go on with", flag_values=values)
    flags.DEFINE_string("host", Door().host, "the address of a page", flag_values=values)
    flags.DEFINE_integer("port", Door().port, "the port of a page", flag_values=values)
    flags.DEFINE_string("token", "", "what a page asks for", flag_values=values)
    flags.DEFINE_bool("yes", False, "do not ask", flag_values=values)
    flags.DEFINE_bool("cluster", False, "this is one of several processes", flag_values=values)
    flags.DEFINE_string("coordinator", "", "the first process's HOST:PORT", flag_values=values)
    flags.DEFINE_integer("processes", 0, "how many there are", flag_values=values)
    flags.DEFINE_integer("process", -1, "which one this is", flag_values=values)


MESH = ("mesh.data", "mesh.model")  # fields that a saved config takes too, with no file named


def define_mesh(values: flags.FlagValues) -> None:
    """Adds the flags of the devices, for a command line that names no config, which would define them."""
    for name in MESH:
        flags.DEFINE_integer(f"config.{name}", None, "how many devices", flag_values=values)


FLAGS = ("config", "workdir", "mode", *ONLY_FOR, "cluster", "coordinator", "processes", "process")


def of(values: flags.FlagValues, given: str | None) -> Command:
    """The flags as a command; `given`: the value of --config. Raises InputError for what does not go together."""
    mode: str = values.mode
    folder: str | None = values.workdir
    if mode not in MODES:
        raise InputError(f"--mode={mode}: must be one of {', '.join(MODES)}.{near(mode, MODES)}")
    if folder is not None and not folder.strip():
        raise InputError("--workdir is empty: name a folder, or leave the flag out.")
    if mode in OF_A_RUN and folder is None:
        raise InputError(f"--mode={mode} needs --workdir=FOLDER, the folder of a run that has saved edits.")
    several = mode == "compare" or mode in OF_FILES
    for name in (folder or "").split(",") if several else (folder or "",):
        together.finish(Path(name.strip() if several else name))
    for name, (modes, words) in ONLY_FOR.items():
        if values[name].present and mode not in modes:
            raise InputError(f"--{name}={values[name].value} is {words}: it needs --mode={' or --mode='.join(modes)}.")
    mesh = _mesh(values, mode) if given is None else None
    to, form = values.to, str(values["as"].value)
    if form not in FORMS:
        raise InputError(f"--as={form}: must be one of {', '.join(FORMS)}.{near(form, FORMS)}")
    if mode == "export" and not (to and to.strip()):
        raise InputError("--mode=export needs --to=FOLDER, where the edited model is to be written.")
    if mode in OF_FILES:
        return _of_files(mode, folder or "", to, values.batches, given)
    if mode == "compare":
        return _comparison(folder or "", to, given)
    cluster = _cluster(values, mode)
    if mode == "edit":
        return _edit(values, folder, given, mesh)
    if mode == "serve":
        return _serve(values, folder, given, mesh)
    if mode == "generate":
        if given is not None:
            raise InputError("--mode=generate takes a run as it was made: leave --config out, name it with --workdir.")
        return Command(NO_CONFIG, Path(str(folder)), mode, prompts=tuple(values.prompt), mesh=mesh)
    if mode == "eval" and given is None and workdir.Workdir(Path(str(folder))).session.exists():
        if cluster is not None:
            raise InputError("--mode=eval of edits by hand is the work of one process: leave the cluster's flags out.")
        return Command(NO_CONFIG, Path(str(folder)), mode, mesh=mesh)  # the facts that are in force
    if given is not None:
        config = values.config
        path = Path(folder) if folder is not None else _new_folder(_stem(given))
    elif mode in OF_A_RUN and folder is not None:
        path = Path(folder)
        config = workdir.saved_config(path)
        config.update_from_flattened_dict({f"mesh.{axis}": count for axis, count in (mesh or {}).items()})
    else:
        raise InputError("--config=FILE is missing, for instance --config=configs/quickstart.py; see --help.")
    settings.check(config)
    return Command(config, path, mode, Path(to) if to else None, cluster=cluster, form=form, mesh=mesh)


def _mesh(values: flags.FlagValues, mode: str) -> dict[str, int]:
    """What flags say of the devices for a config that is saved; of others they override, which are to be named."""
    found: dict[str, Any] = {name: values[f"config.{name}"].value for name in MESH if values[f"config.{name}"].present}
    for name, value in found.items():
        if mode not in (*OF_A_RUN, *BY_HAND):
            raise InputError(unnamed(f"config.{name}"))
        if not settings.FIELDS[name].holds(value):
            raise InputError(settings.fault(name, value))
    return {name.removeprefix("mesh."): value for name, value in found.items()}


def unnamed(flag: str) -> str:
    """What to say of a field's flag where no config is named."""
    return f"--{flag} overrides a field of a config, so name the file before it with --config=FILE."


def _edit(values: flags.FlagValues, folder: str | None, given: str | None, mesh: Mapping[str, int] | None) -> Command:
    """A person's own facts, with a config or with what is ready for the default model."""
    facts: str = values.facts
    if not facts.strip():
        raise InputError("--mode=edit needs --facts=FILE, a table (.csv) or lines of JSON (.jsonl) with your facts.")
    config = NO_CONFIG
    if given is not None:
        config = values.config
        config.dataset.name, config.dataset.train_path, config.dataset.valid_path = "facts", facts, facts
        settings.check(config)
    path = Path(folder) if folder is not None else _new_folder(Path(facts).stem)
    return Command(config, path, "edit", facts=facts, yes=values.yes, mesh=mesh)


def _serve(values: flags.FlagValues, folder: str | None, given: str | None, mesh: Mapping[str, int] | None) -> Command:
    """A page to edit by hand, with a config or with what is ready for the default model."""
    door = Door(values.host.strip(), values.port, values.token)
    if not door.host:
        raise InputError("--host is empty: leave the flag out, then the page is for this machine alone.")
    if not 0 <= door.port < 2**16:
        raise InputError(f"--port={door.port}: must be a number from 1 to 65535, or 0 for one that is free.")
    if values["token"].present and not re.fullmatch(TOKEN, door.token):
        raise InputError("--token must be 16 to 200 letters of A-Z, a-z, 0-9, - and _; without it one is drawn.")
    config = NO_CONFIG
    if given is not None:
        config = values.config
        config.dataset.name, config.dataset.train_path, config.dataset.valid_path = "worldfacts", "", ""  # (none read)
        settings.check(config)
    path = Path(folder) if folder is not None else _new_folder("serve")
    return Command(config, path, "serve", door=door, mesh=mesh)


def _cluster(values: flags.FlagValues, mode: str) -> tuple[str, int, int] | None:
    """How this process finds the others of its run, if there are others."""
    coordinator, processes, process = values.coordinator, values.processes, values.process
    if not coordinator and (processes or process != -1):
        raise InputError("--processes and --process need --coordinator=HOST:PORT, the address of the first process.")
    if coordinator and not 0 <= process < processes:
        raise InputError(
            f"--coordinator needs --processes=N and --process=I with I from 0 to N - 1, not {processes} and {process}."
        )
    if coordinator and not re.fullmatch(ADDRESS, coordinator):
        raise InputError(f"--coordinator={coordinator}: must be HOST:PORT, for instance 10.0.0.1:8476.")
    if not coordinator and not values.cluster:
        return None
    if mode not in ("train", "eval"):
        raise InputError(f"--mode={mode} is the work of one process: leave the flags of the cluster out.")
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
    return Command(NO_CONFIG, paths[0], "compare", target, runs=paths)


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
    return Command(NO_CONFIG, paths[0], mode, Path(to) if to else None, runs=paths, batches=batches)


def _stem(given: str) -> str:
    """The name of a config's file, of `FILE[:ARGS]`."""
    return Path(given.split(":", 1)[0]).stem


def _new_folder(name: str) -> Path:
    """runs/<name>-<time>, with a number behind it where that is taken."""
    plain = Path("runs") / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    folder, number = plain, 2
    while folder.exists():
        folder, number = plain.with_name(f"{plain.name}-{number}"), number + 1
    return folder
