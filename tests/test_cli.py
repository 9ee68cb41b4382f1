"""The command lines as a user meets them: a process, its streams, its exit code."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from synth.core.jsonl import read_lines
from tests.conftest import CHECKOUT, Command
from tests.stub_endpoint import stub_endpoint

HELDOUT = '{"question": "What is the price of the lamp?", "answer": "40 pounds", "document_id": "lamp.txt"}\n'


def big_folder(path: Path, documents: int) -> Path:
    path.mkdir()
    for i in range(documents):
        noun = ["valve", "pump", "lamp", "hinge", "filter", "handle", "cable"][i % 7]
        (path / f"d{i:03}.md").write_text(
            f"# Number {i}\n\nThe {noun} N{i} weighs {i + 2} grams without its box. Our shop {i} sells a {noun} for {i * 3 + 1} pounds.\n"
        )
    return path


def test_help_loads_no_machine_learning_package() -> None:
    for program in ("synth", "tune"):
        code = (
            f"import sys; sys.argv = ['{program}', '--help']\n"
            f"import {program}.cli\n"
            "try:\n"
            f"    {program}.cli.main()\n"
            "except SystemExit: pass\n"
            "heavy = {'torch', 'vllm', 'transformers', 'trl', 'peft', 'datasets'} & set(sys.modules)\n"
            "assert not heavy, heavy"
        )
        environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert "Usage" in done.stdout


def test_the_help_of_synth_names_each_command_as_the_command_does_itself() -> None:
    from synth.cli import COMMANDS, command

    for name, (_, text) in COMMANDS.items():
        own = " ".join((command(name).help or "").split())
        assert own.startswith(text), name


def test_a_command_that_does_not_exist_is_a_usage_error_with_a_near_match(command: Command) -> None:
    done = command("synth", "generte")
    assert done.returncode == 2 and "did you mean generate?" in done.stderr and "Traceback" not in done.stderr


def test_generate_filters_splits_and_prints_a_funnel_that_adds_up(tmp_path: Path, command: Command) -> None:
    folder = big_folder(tmp_path / "docs", 20)
    (folder / "photo.png").touch()
    with stub_endpoint() as stub:
        done = command("synth", "generate", folder, "--teacher", stub.url, "--run", "runs/one", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    run = tmp_path / "runs" / "one"
    records = [row for _, row in read_lines(run / "records.jsonl")]
    kept = [row for row in records if row["decision"]["keep"]]
    rows = [row for name in ("train", "validation") for _, row in read_lines(run / "dataset" / f"{name}.jsonl")]
    assert result["generate"]["records"] == len(records) == 40
    assert result["filter"]["kept"] + sum(count for _, count in result["filter"]["funnel"]) == 40
    assert {row["id"] for row in rows} == {row["id"] for row in kept} and len(kept) == len(rows)
    assert all(row["decision"]["reasons"] for row in records if not row["decision"]["keep"])
    assert [row["document_id"] for _, row in read_lines(run / "quarantine.jsonl")] == ["photo.png"]


def test_filtering_again_with_another_rule_asks_no_teacher(tmp_path: Path, command: Command) -> None:
    with stub_endpoint() as stub:
        command("synth", "generate", big_folder(tmp_path / "docs", 20), "--teacher", stub.url, "--run", "r")
        asked = len(stub.bodies)
        done = command("synth", "filter", "r", "--json")
        assert done.returncode == 0 and len(stub.bodies) == asked


def test_the_same_seed_gives_the_same_dataset_twice(tmp_path: Path, command: Command) -> None:
    folder = big_folder(tmp_path / "docs", 20)
    with stub_endpoint() as stub:
        for name in ("a", "b"):
            command("synth", "generate", folder, "--teacher", stub.url, "--run", name, "--seed", "3")
    for name in ("records.jsonl", "dataset/train.jsonl", "dataset/validation.jsonl"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_generate_killed_in_the_middle_repeats_only_the_calls_in_flight(tmp_path: Path, command: Command) -> None:
    folder = big_folder(tmp_path / "docs", 40)
    in_flight = 4
    arguments = ["generate", folder, "--run", tmp_path / "r", "--max-in-flight", in_flight]
    with stub_endpoint(delay=0.15) as stub:
        arguments += ["--teacher", stub.url]
        environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
        process = subprocess.Popen([sys.executable, "-m", "synth.cli", *map(str, arguments)], env=environment)
        deadline = time.monotonic() + 60
        while len(stub.bodies) < 25 and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        before = len(stub.bodies)
        assert 25 <= before < 80
        done = command("synth", *arguments)
        assert done.returncode == 0, done.stderr
        total = len(stub.bodies)
    assert 80 <= total <= 80 + in_flight
    rows = [row for _, row in read_lines(tmp_path / "r" / "records.jsonl")]
    assert len(rows) == 80 == len({row["id"] for row in rows})


def test_ctrl_c_drains_and_says_how_to_go_on(tmp_path: Path) -> None:
    folder = big_folder(tmp_path / "docs", 60)
    with stub_endpoint(delay=0.15) as stub:
        arguments = ["generate", folder, "--run", tmp_path / "r", "--max-in-flight", 2, "--teacher", stub.url]
        process = subprocess.Popen(
            [sys.executable, "-m", "synth.cli", *map(str, arguments)],
            env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
            stderr=subprocess.PIPE,
            text=True,
        )
        deadline = time.monotonic() + 60
        while len(stub.bodies) < 10 and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "stopped after" in errors and "run the same command again" in errors and "Traceback" not in errors
    segments = sorted((tmp_path / "r" / "journal").glob("*.jsonl"))
    assert sum(1 for path in segments for _ in read_lines(path)) == len(stub.bodies)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["filter", "runs/none"], 1, "there is no run here"),
        (["generate", "none"], 2, "no such file or folder"),
        (["generate", "docs", "--generator", "qaa"], 2, "did you mean qa"),
        (["generate", "docs", "--heldout", "bad.jsonl"], 1, "bad.jsonl:2: "),
        (["generate", "docs", "--config", "bad.toml"], 2, "unknown setting 'temprature' (did you mean temperature?)"),
        (["generate", "docs", "--teacher", "http://127.0.0.1:9/v1"], 1, "127.0.0.1:9"),
        (["generate", "docs", "--teacher", "./no-folder"], 2, "no folder, no hub id"),
        (["generate", "docs", "--rule", "grounded >= 0.5"], 2, "grounded"),
        (["generate", "docs", "--temperature", "9"], 2, "temperature"),
        (["generate", "empty"], 1, "no document gave a passage"),
    ],
)
def test_bad_input_is_one_clear_message_and_the_right_exit_code(
    tmp_path: Path, command: Command, arguments: list[str], code: int, message: str
) -> None:
    big_folder(tmp_path / "docs", 2)
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.jsonl").write_text(HELDOUT + '{"question": "No answer?"}\n')
    (tmp_path / "bad.toml").write_text("[generate]\ntemprature = 0.5\n")
    done = command("synth", *arguments)
    assert (done.returncode, "Traceback" in done.stderr) == (code, False), done.stderr
    assert message in done.stderr and not done.stdout


def test_a_teacher_that_returns_junk_is_an_error_and_its_text_is_kept(tmp_path: Path, command: Command) -> None:
    folder = big_folder(tmp_path / "docs", 3)
    with stub_endpoint(lambda _: "Sure! Here is your pair:") as stub:
        done = command("synth", "generate", folder, "--teacher", stub.url, "--run", "r")
    assert done.returncode == 1 and "the reply is not JSON" in done.stderr and "Traceback" not in done.stderr
    assert {row["raw"] for _, row in read_lines(tmp_path / "r" / "quarantine.jsonl")} == {"Sure! Here is your pair:"}


def test_a_server_that_never_gets_ready_shows_its_log(tmp_path: Path, command: Command) -> None:
    folder = big_folder(tmp_path / "docs", 2)
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "config.json").write_text('{"model_type": "no-such-model"}')
    done = command("synth", "generate", folder, "--teacher", "weights", "--run", "r")
    assert done.returncode == 1 and "Traceback (most" not in done.stderr.splitlines()[0]
    assert "logs/teacher.log" in done.stderr and (tmp_path / "r" / "logs" / "teacher.log").stat().st_size


def test_a_full_disk_stops_with_a_clear_error_and_loses_nothing(tmp_path: Path) -> None:
    folder = big_folder(tmp_path / "docs", 30)
    with stub_endpoint() as stub:
        arguments = [sys.executable, "-m", "synth.cli", "generate", str(folder), "--run", str(tmp_path / "r")]
        arguments += ["--teacher", stub.url]
        environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}

        def few_bytes() -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

        full = subprocess.run(
            arguments, env=environment, capture_output=True, text=True, check=False, preexec_fn=few_bytes
        )
        assert full.returncode == 1 and "cannot be written" in full.stderr and "Traceback" not in full.stderr
        kept = sum(path.read_bytes().count(b"\n") for path in (tmp_path / "r" / "journal").glob("*.jsonl"))
        done = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert sum(1 for _ in read_lines(tmp_path / "r" / "records.jsonl")) == 60
    # No answer that was written is asked for again.
    assert kept > 0 and len(stub.bodies) <= 60 + 60 - kept


def test_num_records_is_exact_or_the_command_fails(tmp_path: Path, command: Command) -> None:
    folder = big_folder(tmp_path / "docs", 30)
    with stub_endpoint() as stub:
        base = ["generate", folder, "--teacher", stub.url]
        done = command("synth", *base, "--run", "few", "--num-records", 12, "--json")
        assert done.returncode == 0 and json.loads(done.stdout)["filter"]["kept"] == 12, done.stderr
        done = command("synth", *base, "--run", "many", "--num-records", 500, "--max-rounds", 1)
        assert done.returncode == 1 and "of the 500" in done.stderr
        assert (tmp_path / "many" / "dataset" / "train.jsonl").stat().st_size
