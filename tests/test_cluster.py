"""The files of examples/cluster: they parse, and their commands run shards that merge."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from synth.core.jsonl import read_lines
from synth.jobs_file import read_jobs
from tests.conftest import CHECKOUT, Command
from tests.stub_endpoint import stub_endpoint
from tests.test_cli import HELDOUT, big_folder

CLUSTER = CHECKOUT / "examples" / "cluster"


def environment(tmp_path: Path, **variables: str) -> dict[str, str]:
    """Return an environment in which `synth` is this checkout's."""
    folder = tmp_path / "bin"
    folder.mkdir(exist_ok=True)
    (folder / "synth").write_text(f'#!/bin/sh\nexec {sys.executable} -m synth.cli "$@"\n')
    (folder / "synth").chmod(0o755)
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYTHONPATH": str(CHECKOUT), "NO_COLOR": "1", **variables}


def run_it(command: list[str], tmp_path: Path, variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env=environment(tmp_path, **variables),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done


def container(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the job's spec and its container."""
    document = yaml.safe_load((CLUSTER / name).read_text())
    assert (document["apiVersion"], document["kind"]) == ("batch/v1", "Job")
    (found,) = document["spec"]["template"]["spec"]["containers"]
    return document["spec"], found


def test_the_slurm_scripts_make_shards_that_merge(tmp_path: Path) -> None:
    for script in CLUSTER.glob("*.sh"):
        subprocess.run(["bash", "-n", str(script)], check=True)
        shutil.copy(script, tmp_path)
    big_folder(tmp_path / "manuals", 9)
    (tmp_path / "heldout.jsonl").write_text(HELDOUT)
    with stub_endpoint() as stub:
        variables = {"SHARDS": "2", "DOCS": "manuals", "TEACHER": stub.url, "RUNS": "runs/manuals"}
        for index in range(2):
            task = {**variables, "SLURM_ARRAY_TASK_ID": str(index)}
            run_it(["bash", "slurm-array.sh", "--seed", "3", "--heldout", "heldout.jsonl"], tmp_path, task)
        run_it(["bash", "slurm-merge.sh", "--rule", "relevance >= 0"], tmp_path, variables)
    assert sum(1 for _ in read_lines(tmp_path / "runs/manuals/merged/records.jsonl")) == 18 == len(stub.bodies)
    unset = subprocess.run(["bash", "slurm-array.sh"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert unset.returncode != 0 and "the number of shards" in unset.stderr


def test_the_pods_of_the_kubernetes_job_make_shards_that_merge(tmp_path: Path) -> None:
    spec, pod = container("kubernetes-indexed-job.yaml")
    values = {entry["name"]: entry["value"] for entry in pod["env"]}
    assert spec["completionMode"] == "Indexed" and spec["completions"] == int(values["SHARDS"])
    merge_spec, merge_pod = container("kubernetes-merge-job.yaml")
    assert {entry["name"]: entry["value"] for entry in merge_pod["env"]}.items() <= values.items()
    for one in (spec, merge_spec):
        parts = one["template"]["spec"]
        mounted = {mount["name"] for mount in parts["containers"][0]["volumeMounts"]}
        assert mounted == {volume["name"] for volume in parts["volumes"]}
    (rule,) = (rule for rule in spec["podFailurePolicy"]["rules"] if "onExitCodes" in rule)
    assert rule["onExitCodes"]["containerName"] == pod["name"]

    big_folder(tmp_path / "manuals", 9)
    with stub_endpoint() as stub:
        variables = {**values, "SHARDS": "2", "DOCS": "manuals", "TEACHER": stub.url, "RUNS": str(tmp_path / "runs")}
        for index in range(2):
            run_it(pod["command"], tmp_path, {**variables, "JOB_COMPLETION_INDEX": str(index)})
        run_it(merge_pod["command"], tmp_path, variables)
    assert sum(1 for _ in read_lines(tmp_path / "runs/merged/records.jsonl")) == 18 == len(stub.bodies)


@pytest.mark.parametrize("ending", ["SuccessCriteriaMet Complete", "FailureTarget Failed"])
def test_the_wait_of_the_page_ends_when_the_job_does_however_it_does(tmp_path: Path, ending: str) -> None:
    # Stand-ins for the cluster: what kubectl prints of a job's conditions, one call after another.
    said = tmp_path / "said"
    said.write_text(f"\n{ending.split()[0]}\n{ending}\n")
    for name, body in (("kubectl", 'head -n 1 "$SAID"; sed -i 1d "$SAID"'), ("sleep", "")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    page = (CHECKOUT / "docs" / "many-machines.md").read_text()
    block = page[page.index("    kubectl apply -f kubernetes-indexed-job.yaml\n") :].partition("\n\n")[0]
    _, wait, _ = block.splitlines()
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SAID": str(said)}
    done = subprocess.run(["sh", "-c", wait], env=environment, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 0 and done.stdout == f"{ending}\n" and said.read_text() == ""


async def test_the_list_of_jobs_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("manuals", "tickets/2024", "tickets/2025"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "heldout.jsonl").write_text(HELDOUT)
    jobs = {named.name: named.job for named in await read_jobs(CLUSTER / "jobs.yaml")}
    assert jobs.keys() == {"manuals", "tickets", "manuals-large"}
    assert jobs["manuals"].generate.num_records == 2000 and jobs["manuals"].generate.temperature == 0.6
    assert not jobs["manuals-large"].filter and len(jobs["tickets"].documents) == 2


def test_every_command_of_the_page_has_the_flags_that_it_names(command: Command) -> None:
    page = (CHECKOUT / "docs" / "many-machines.md").read_text()
    helps: dict[str, str] = {}
    for match in re.finditer(r"synth (batch export|batch collect|generate|merge|jobs|filter)\b([^`\n]*)", page):
        name = match[1]
        helps.setdefault(name, command("synth", *name.split(), "--help").stdout)
        for flag in re.findall(r"--[a-z-]+", match[2]):
            assert flag in helps[name], f"synth {name} has no {flag}"
    assert helps.keys() == {"batch export", "batch collect", "generate", "merge", "jobs", "filter"}
