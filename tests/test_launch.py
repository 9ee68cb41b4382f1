"""Trainings in several processes: two on this CPU, which talk through gloo, started as a user starts them."""

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from synth.core.errors import ConfigError
from synth.core.runs import Run
from tests.conftest import CHECKOUT
from tests.runs_for_tests import filtered_run, tiny_student
from tests.trainings import config
from tune.candidate import find_candidate
from tune.config import TuneConfig
from tune.launch import Machines, launch_flags, machines_of, read_accelerate_config, worker_arguments
from tune.sft import train

CONFIGS = CHECKOUT / "examples" / "cluster" / "accelerate"

deepspeed_only = pytest.mark.skipif(
    importlib.util.find_spec("deepspeed") is None, reason="DeepSpeed is not installed: pip install deepspeed"
)

# 12 rows in batches of 2; 2 processes × 2 batches a step here, 1 × 4 where one process does the same.
FLAGS = [
    "--threads=1",
    "--epochs=2",
    "--batch-size=2",
    "--gradient-accumulation=2",
    "--learning-rate=2e-3",
    "--dropout=0",
]


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_student(tmp_path_factory.mktemp("models") / "tiny")


def alone(student: Path, run: Run, method: str, **settings: Any) -> dict[str, Any]:  # noqa: ANN401
    """Train in this process what two processes do; return training.json."""
    same = {"epochs": 2, "batch_size": 2, "gradient_accumulation": 4, "dropout": 0.0, "candidate": "alone"}
    result = train(run, config(student, method=method, **{**same, **settings}))
    report: dict[str, Any] = json.loads((result.path / "training.json").read_bytes())
    return report


def start(student: Path, run: Run, *flags: str, **environment: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "tune.cli", "sft", str(run.path), "--student", str(student), *FLAGS]
    return subprocess.Popen(
        [*command, "--launcher", "accelerate", "--json", *flags],
        env={**os.environ, "PYTHONPATH": str(CHECKOUT), "OMP_NUM_THREADS": "1", **environment},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def finished(started: "subprocess.Popen[str]") -> dict[str, Any]:
    """Return what was printed to stdout, which is JSON and nothing else."""
    out, said = started.communicate(timeout=400)
    assert started.returncode == 0, said
    printed: dict[str, Any] = json.loads(out)["sft"]
    return printed


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("ddp", "lora"),
        ("fsdp", "full"),
        ("fsdp", "lora"),
        pytest.param("zero2", "full", marks=deepspeed_only),
        pytest.param("zero3", "lora", marks=deepspeed_only),
    ],
)
def test_two_processes_train_what_one_does_and_save_it_whole(
    student: Path, tmp_path: Path, name: str, method: str
) -> None:
    run = filtered_run(tmp_path / "run")
    expected = alone(student, run, method)
    flags = ["--accelerate-config", str(CONFIGS / f"{name}.yaml"), "--processes", "2", "--method", method]
    result = finished(start(student, run, *flags, "--candidate", "together"))
    folder = run.student_path("together")
    report = json.loads((folder / "training.json").read_bytes())
    assert result["trained"] and report["setup"]["processes"] == 2 and report["steps"] == expected["steps"] == 4
    losses, same = ([point["loss"] for point in r["history"]["train"]] for r in (report, expected))
    assert losses == pytest.approx(same, rel=1e-4) and losses[-1] < losses[0]
    together, one = (load_file(next(run.student_path(c).glob("*.safetensors"))) for c in ("together", "alone"))
    assert together.keys() == one.keys()
    for key, tensor in one.items():
        torch.testing.assert_close(together[key].float(), tensor.float(), rtol=2e-2, atol=2e-3)
    # One process loads it, from the files that run.json vouches for.
    candidate = find_candidate(run, "together")
    model = AutoModelForCausalLM.from_pretrained(student if method == "lora" else candidate.folder)
    if method == "lora":
        model = PeftModel.from_pretrained(model, str(candidate.folder))
    assert torch.isfinite(model(torch.tensor([[5, 6, 7]])).logits).all()


def test_a_signal_saves_in_all_processes_and_the_same_command_goes_on(student: Path, tmp_path: Path) -> None:
    run = filtered_run(tmp_path / "run")
    flags = [
        "--accelerate-config",
        str(CONFIGS / "fsdp.yaml"),
        "--processes",
        "2",
        "--method",
        "full",
        "--epochs",
        "20",
    ]
    flags += ["--candidate", "stopped", "--early-stopping", "0", "--keep", "last"]
    started = start(student, run, *flags)
    assert started.stderr is not None
    for line in started.stderr:
        if line.startswith("1 of 40 steps"):
            break
    started.send_signal(signal.SIGTERM)
    out, said = started.communicate(timeout=200)
    assert started.returncode == 130, said
    assert "the checkpoint is saved" in said and "Traceback" not in said and not out
    assert not run.student_path("stopped").exists()
    result = finished(start(student, run, *flags))
    assert 1 <= result["resumed_from"] < 40 and result["steps"] == 40
    report = json.loads((run.student_path("stopped") / "training.json").read_bytes())
    expected = alone(student, run, "full", epochs=20, early_stopping=0, keep="last")
    losses, same = ([point["loss"] for point in r["history"]["train"]] for r in (report, expected))
    assert losses == pytest.approx(same, rel=2e-2)


def test_two_machines_train_together(student: Path, tmp_path: Path) -> None:
    """Two launchers on this machine, each with a process of its own, as on two machines with a GPU each."""
    run = filtered_run(tmp_path / "run")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    machines = {"NNODES": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    flags = ["--processes", "2", "--method", "lora", "--candidate", "together"]
    first, second = (start(student, run, *flags, NODE_RANK=str(node), **machines) for node in range(2))
    assert finished(first)["steps"] == 4
    out, said = second.communicate(timeout=60)
    assert second.returncode == 0 and not out and "loss" not in said
    assert json.loads((run.student_path("together") / "training.json").read_bytes())["setup"]["processes"] == 2


def test_an_error_is_told_once_and_without_a_traceback(student: Path, tmp_path: Path) -> None:
    run = filtered_run(tmp_path / "run")
    started = start(student, run, "--processes", "2", "--method", "lora", "--max-length", "20")
    _, said = started.communicate(timeout=200)
    assert started.returncode == 1
    assert said.count("tune: longer than 20 tokens") == 1 and "Traceback" not in said and "process 1" not in said


def test_a_process_that_is_killed_ends_the_training_and_is_named(student: Path, tmp_path: Path) -> None:
    run = filtered_run(tmp_path / "run")
    started = start(student, run, "--processes", "2", "--method", "lora", "--epochs", "200", "--early-stopping", "0")
    assert started.stderr is not None
    for line in started.stderr:
        if line.startswith("1 of 400 steps"):
            break
    children = subprocess.run(
        ["ps", "--ppid", str(started.pid), "-o", "pid="], capture_output=True, text=True, check=True
    )
    for pid in map(int, children.stdout.split()):
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        if b"RANK=1" in variables:
            os.kill(pid, signal.SIGKILL)
    _, said = started.communicate(timeout=120)
    assert started.returncode == 1 and "process 1 ended first" in said and "sft-process-1.log" in said
    assert "Traceback" not in said.partition("process 1 ended")[2]


def test_the_processes_get_the_command_of_the_user_without_what_starts_them() -> None:
    given = [
        "sft",
        "runs/a",
        "--launcher",
        "accelerate",
        "--processes=2",
        "--accelerate-config",
        "f.yaml",
        "--rank",
        "8",
    ]
    assert worker_arguments(given) == ["sft", "--launcher", "none", "runs/a", "--rank", "8"]


def test_the_flags_say_how_many_processes_and_where() -> None:
    settings = TuneConfig(launcher="accelerate")
    plain = launch_flags(["sft", "r"], settings, {}, Machines(), gpus=4)
    assert plain[plain.index("--num_processes") + 1] == "4" and "--multi_gpu" in plain
    assert plain[plain.index("--main_process_port") + 1] == "0"  # two trainings on a machine do not meet
    assert plain[plain.index("--module") :] == ["--module", "tune.cli", "sft", "--launcher", "none", "r"]
    many = launch_flags(["sft", "r"], settings, {}, Machines(2, 1, "node-0", 29500), gpus=4)
    assert many[many.index("--num_processes") + 1] == "8" and many[many.index("--machine_rank") + 1] == "1"
    assert many[many.index("--main_process_ip") + 1] == "node-0"


@pytest.mark.parametrize(
    ("processes", "machines", "gpus", "said"),
    [
        (None, Machines(), 0, "no GPU"),
        (5, Machines(), 4, "this one has 4 GPUs; at most 4"),
        (9, Machines(2, 0, "a", 1), 4, "evenly over 2 machines"),
        (1, Machines(), 4, "one process needs no launcher"),
    ],
)
def test_a_number_of_processes_that_cannot_be_is_refused(
    processes: int | None, machines: Machines, gpus: int, said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        launch_flags(["sft", "r"], TuneConfig(processes=processes), {}, machines, gpus=gpus)


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"NNODES": "2", "NODE_RANK": "0"}, "MASTER_PORT and MASTER_ADDR is not"),
        ({"NNODES": "2", "NODE_RANK": "x", "MASTER_ADDR": "a", "MASTER_PORT": "1"}, "NODE_RANK is no number: 'x'"),
        ({"NNODES": "2", "NODE_RANK": "2", "MASTER_ADDR": "a", "MASTER_PORT": "1"}, "count from 0"),
    ],
)
def test_an_environment_that_does_not_say_which_machine_this_is_is_refused(
    environment: dict[str, str], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        machines_of(environment)
    assert machines_of({}) == Machines()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [", "no YAML"),
        ("- a", "no config of accelerate"),
        ("distributed_typ: FSDP", "did you mean distributed_type"),
        ("distributed_type: XLA", "MULTI_GPU, FSDP, DEEPSPEED"),
        ("distributed_type: FSDP\nfsdp_config: {fsdp_version: 1}", "set fsdp_version: 2"),
        ("distributed_type: MULTI_GPU\nnum_processes: many", "num_processes is 'many'"),
        ("distributed_type: MULTI_GPU\nmixed_precision: fp16", "--precision says it"),
        pytest.param(
            "distributed_type: DEEPSPEED\ndeepspeed_config: {zero_stage: 3}", "could not be saved", marks=deepspeed_only
        ),
    ],
)
def test_a_config_that_cannot_train_a_student_is_refused_with_the_fix(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "accelerate.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=said) as raised:
        read_accelerate_config(path, TuneConfig())
    assert str(path) in str(raised.value)


def test_a_config_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml.*cannot be read"):
        read_accelerate_config(tmp_path / "none.yaml", TuneConfig())


@pytest.mark.parametrize("name", ["ddp", "fsdp", pytest.param("zero2", marks=deepspeed_only)])
def test_four_bits_go_with_whole_weights_alone(name: str) -> None:
    path = CONFIGS / f"{name}.yaml"
    assert read_accelerate_config(path, TuneConfig()) == yaml.safe_load(path.read_text())
    if name == "fsdp":
        with pytest.raises(ConfigError, match="four bits"):
            read_accelerate_config(path, TuneConfig(method="qlora"))
    else:
        read_accelerate_config(path, TuneConfig(method="qlora"))


def test_the_script_for_slurm_tells_each_task_which_machine_it_is(tmp_path: Path) -> None:
    """Stand-ins for Slurm's commands: `srun` runs the task of one machine, `tune` says what it was given."""
    script = CHECKOUT / "examples" / "cluster" / "sft.slurm"
    subprocess.run(["bash", "-n", str(script)], check=True)
    stand_ins = {
        "scontrol": 'echo "node-7"; echo "node-8"',
        "srun": 'while [ "${1#--}" != "$1" ]; do shift; done; SLURM_NODEID=1 exec "$@"',
        "tune": 'echo "$NNODES $NODE_RANK $MASTER_ADDR $MASTER_PORT $*"',
    }
    for name, body in stand_ins.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    slurm = {"SLURM_JOB_NODELIST": "node-[7-8]", "SLURM_JOB_ID": "41", "SLURM_JOB_NUM_NODES": "2"}
    done = subprocess.run(
        ["bash", str(script), "--rank", "8"],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}", "RUN": "runs/a b", "ACCELERATE": "fsdp.yaml", **slurm},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == (
        "2 1 node-7 20041 sft runs/a b --launcher accelerate --accelerate-config fsdp.yaml --rank 8\n"
    )
