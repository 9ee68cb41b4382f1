"""`tune sft --launcher accelerate`: the same command in several processes, on the GPUs of one machine or of many.

accelerate starts them; this module checks what it is given and says in plain words what is wrong with it.
"""

import importlib.util
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from synth.core.errors import ConfigError, did_you_mean
from tune.config import TuneConfig
from tune.ranks import process_log

_DATA_PARALLEL, _FSDP, _DEEPSPEED = "MULTI_GPU", "FSDP", "DEEPSPEED"
_KINDS = (_DATA_PARALLEL, _FSDP, _DEEPSPEED)

# Flags that are for the process that starts the others, with their values.
_OURS = ("--launcher", "--accelerate-config", "--processes")


@dataclass(frozen=True, slots=True)
class Machines:
    """Which of how many machines this is, and where the first one listens; from the environment, or one alone."""

    number: int = 1
    this: int = 0
    address: str | None = None
    port: int = 0


def launch(run_path: Path, arguments: Sequence[str], config: TuneConfig) -> int:
    """Start a training in several processes, wait for all of them, and return the exit code of the training.

    Signals are passed on, so that Ctrl-C and SIGTERM save a checkpoint in all processes. Of several machines, each one
    calls this with the same arguments, and NNODES, NODE_RANK, MASTER_ADDR and MASTER_PORT in the environment.

    Args:
        run_path: the run; what the other processes say is written to its logs/.
        arguments: the command line behind `tune`, beginning with "sft".
        config: the settings that follow from it.

    Raises:
        ConfigError: the config file is wrong, a package is missing, or there are fewer GPUs than processes.
    """
    machines = machines_of(os.environ)
    settings = {} if config.accelerate_config is None else read_accelerate_config(config.accelerate_config, config)
    flags = launch_flags(arguments, config, settings, machines, gpus=_gpus())
    from tune.agent import INTERRUPTED, run  # torch and accelerate load here.

    ended = run(flags)
    if ended.process and ended.code != INTERRUPTED:
        sys.stderr.write(
            f"tune: process {ended.process} ended first, with exit code {ended.code}; "
            f"see {process_log(run_path, ended.process)}\n"
        )
    return ended.code


def launch_flags(
    arguments: Sequence[str], config: TuneConfig, settings: Mapping[str, Any], machines: Machines, *, gpus: int
) -> list[str]:
    """Return the flags of `accelerate launch` that run this command in several processes.

    Args:
        arguments: the command line behind `tune`.
        config: the settings of the training.
        settings: what its accelerate config file says, or nothing.
        machines: which machine this is.
        gpus: how many GPUs this machine has.

    Raises:
        ConfigError: the number of processes does not follow from anything, or does not fit the machines.
    """
    kind = settings.get("distributed_type", _DATA_PARALLEL)
    number = machines.number if machines.address else int(settings.get("num_machines") or 1)
    processes = config.processes or settings.get("num_processes") or gpus * number
    if not processes:
        raise ConfigError("there is no GPU here to count", where="--processes", fix="say how many processes to start")
    _check_processes(int(processes), number, kind, gpus)
    if number > 1 and not (machines.address or settings.get("main_process_ip")):
        raise ConfigError(
            f"the config is for {number} machines and does not say where the first one listens",
            where=str(config.accelerate_config),
            fix="set MASTER_ADDR, MASTER_PORT, NNODES and NODE_RANK (examples/cluster/sft.slurm does), or "
            "main_process_ip, main_process_port and machine_rank in the file",
        )
    flags = ["--num_processes", str(processes), "--num_machines", str(number)]
    # The precision is a setting of the training and not of how it is started.
    flags += ["--mixed_precision", "no"]
    if config.accelerate_config is None:
        flags += ["--multi_gpu", "--dynamo_backend", "no"]
    else:
        flags += ["--config_file", str(config.accelerate_config)]
    if kind == _DEEPSPEED:
        # DeepSpeed's other launchers log in to the machines themselves.
        flags += ["--deepspeed_multinode_launcher", "standard"]
    if machines.address:
        flags += ["--machine_rank", str(machines.this), "--same_network"]
        flags += ["--main_process_ip", machines.address, "--main_process_port", str(machines.port)]
    elif number == 1 and not settings.get("main_process_port"):
        flags += ["--main_process_port", "0"]  # any port that is free
    return [*flags, "--module", "tune.cli", *worker_arguments(arguments)]


def worker_arguments(arguments: Sequence[str]) -> list[str]:
    """Return the command line that each process gets: this one, told to start no others."""
    kept: list[str] = []
    left = iter(arguments)
    for argument in left:
        if argument in _OURS:
            next(left, None)
        elif argument.partition("=")[0] not in _OURS:
            kept.append(argument)
    return [*kept[:1], "--launcher", "none", *kept[1:]]


def machines_of(environment: Mapping[str, str]) -> Machines:
    """Return which machine this is, as NNODES, NODE_RANK, MASTER_ADDR and MASTER_PORT say.

    Raises:
        ConfigError: one of them is missing or no number.
    """
    if environment.get("NNODES", "1") == "1":
        return Machines()
    names = ("NNODES", "NODE_RANK", "MASTER_PORT")
    missing = [name for name in (*names, "MASTER_ADDR") if not environment.get(name)]
    if missing:
        raise ConfigError(f"NNODES is set and {' and '.join(missing)} is not", fix="set them all, or none of them")
    wrong = [name for name in names if not environment[name].isdecimal()]
    if wrong:
        raise ConfigError(f"{wrong[0]} is no number: {environment[wrong[0]]!r}", fix="see examples/cluster/sft.slurm")
    number, this, port = (int(environment[name]) for name in names)
    if this >= number:
        raise ConfigError(f"NODE_RANK is {this} of {number} machines", fix="count from 0")
    return Machines(number, this, environment["MASTER_ADDR"], port)


def read_accelerate_config(path: Path, config: TuneConfig) -> dict[str, Any]:
    """Return what a config file of accelerate says, once it is certain that a student can be trained with it.

    Raises:
        ConfigError: it cannot be read, has unknown keys, or names what cannot train or save a student.
    """
    where = str(path)
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"the config of accelerate cannot be read ({error.strerror})", where=where, fix="name another file"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"this is no YAML ({' '.join(str(error).split())[:200]})", where=where) from error
    if not isinstance(settings, dict):
        raise ConfigError("this is no config of accelerate", where=where, fix="see examples/cluster/accelerate")
    _check_names(settings, where)
    kind = settings.get("distributed_type")
    if kind not in _KINDS:
        raise ConfigError(
            f"distributed_type is {kind!r}", where=where, fix=f"a student is trained with {', '.join(_KINDS)}"
        )
    for key in ("num_processes", "num_machines"):
        value = settings.get(key, 1)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ConfigError(f"{key} is {value!r}", where=where, fix="a number from 1")
    if settings.get("mixed_precision") not in (None, False, "no"):
        raise ConfigError(
            f"mixed_precision is {settings['mixed_precision']!r}",
            where=where,
            fix="take the line out: --precision says it",
        )
    if kind == _FSDP:
        _check_fsdp(settings.get("fsdp_config") or {}, config, where)
    if kind == _DEEPSPEED:
        _check_deepspeed(settings.get("deepspeed_config") or {}, config, where)
    return settings


def _check_names(settings: Mapping[str, Any], where: str) -> None:
    from dataclasses import fields

    from accelerate.commands.config.config_args import ClusterConfig

    known = [field.name for field in fields(ClusterConfig)]
    for name in settings:
        if name not in known:
            raise ConfigError(f"accelerate knows no {name!r}", where=where, fix=did_you_mean(str(name), known))


def _check_fsdp(settings: Mapping[str, Any], config: TuneConfig, where: str) -> None:
    if settings.get("fsdp_version") != 2:
        raise ConfigError("only the second version of FSDP is known to work", where=where, fix="set fsdp_version: 2")
    if config.method == "qlora":
        raise ConfigError("weights in four bits cannot be split", where=where, fix="take ddp.yaml, or --method lora")


def _check_deepspeed(settings: Mapping[str, Any], config: TuneConfig, where: str) -> None:
    if importlib.util.find_spec("deepspeed") is None:
        raise ConfigError("DeepSpeed is not installed", where=where, fix="pip install deepspeed, or take fsdp.yaml")
    if settings.get("zero_stage") == 3:
        if config.method == "qlora":
            raise ConfigError(
                "weights in four bits cannot be split", where=where, fix="take ddp.yaml, or --method lora"
            )
        if settings.get("zero3_save_16bit_model") is not True:
            raise ConfigError(
                "the weights could not be saved at the end", where=where, fix="set zero3_save_16bit_model: true"
            )


def _check_processes(processes: int, machines: int, kind: str, gpus: int) -> None:
    if processes % machines:
        raise ConfigError(
            f"{processes} processes cannot be shared out evenly over {machines} machines",
            where="--processes",
            fix="it counts those of all machines together",
        )
    here = processes // machines
    if gpus and here > gpus:
        raise ConfigError(
            f"{here} processes on a machine, and this one has {gpus} GPU{'s' if gpus > 1 else ''}",
            where="--processes",
            fix=f"at most {gpus * machines}: one a GPU",
        )
    if processes == 1 and kind == _DATA_PARALLEL:
        raise ConfigError("one process needs no launcher", where="--launcher", fix="leave it out, or raise --processes")


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()
