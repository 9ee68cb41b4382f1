"""`tune push`: one commit of the candidate's own files to a hub on this machine, and nothing else, ever."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from synth.core.errors import RunError
from synth.core.jsonl import digest_file, write_json
from synth.core.runs import Run
from tests.conftest import CHECKOUT
from tests.fake_hub import Hub, fake_hub
from tests.runs_for_tests import filtered_run, tiny_student
from tune.config import TuneConfig
from tune.export import ExportConfig, export
from tune.push import pack

pytest.importorskip("huggingface_hub")
pytest.importorskip("trl")

# Put together here, so that no scanner takes it for a token.
TOKEN = "h" + "f_" + "TopSecretTokenOfTheTests"


@pytest.fixture
def hub() -> Iterator[Hub]:
    with fake_hub() as served:
        yield served


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tune.sft import train

    folder = tmp_path_factory.mktemp("trained")
    student = tiny_student(folder / "tiny")
    run = filtered_run(folder / "run")
    train(run, TuneConfig(student=str(student), candidate="ad", threads=1, steps=1, epochs=1, save_every=1e9))
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Run:
    shutil.copytree(trained / "run", tmp_path / "run")
    return Run.open(tmp_path / "run")


def push(
    path: Path, hub: Hub, *flags: str, token: str | None = TOKEN, to: str = "me/lamps", **more: str
) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING_"))} | {
        "PYTHONPATH": str(CHECKOUT),
        "HF_ENDPOINT": hub.url,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HOME": str(path.parent / "hf"),
        "COLUMNS": "300",
        **more,
    }
    if token is not None:
        environment["HF_TOKEN"] = token
    start = (
        "import typer; from tune.cli_export import register; from synth.core.entry import run_app; "
        "app = typer.Typer(pretty_exceptions_enable=False, rich_markup_mode=None); register(app); run_app(app, 'tune')"
    )
    return subprocess.run(
        [sys.executable, "-c", start, "push", str(path), "--to", to, *flags],
        cwd=path.parent,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_push_is_one_commit_of_the_candidates_files(run: Run, hub: Hub) -> None:
    folder = run.student_path("ad")
    (folder / "notes.txt").write_text("mine")
    done = push(run.path, hub)
    assert done.returncode == 0, done.stderr
    listed = {Path(name).name for name in run.stages()["sft:ad"].outputs}
    assert [set(commit) for commit in hub.commits] == [listed]
    assert hub.trees["me/lamps"] == {name: (folder / name).read_bytes() for name in listed}
    assert f"Pushed: {hub.url}/me/lamps/commit/" in done.stdout
    assert "adapter_model.safetensors" in done.stderr and "left here, no part of it: notes.txt" in done.stderr
    assert hub.tokens - {""} == {f"Bearer {TOKEN}"} and not any("/datasets/" in request for request in hub.requests)
    for path in run.path.parent.rglob("*"):
        assert not path.is_file() or TOKEN.encode() not in path.read_bytes(), path
    assert TOKEN not in done.stdout + done.stderr


def test_an_exported_folder_is_pushed_with_its_report_to_a_branch_of_a_private_model(
    run: Run, hub: Hub, tmp_path: Path
) -> None:
    export(run.path, tmp_path / "lamps-1b", ExportConfig(merge=True, parity=False))
    done = push(tmp_path / "lamps-1b", hub, "--private", "--revision", "v1")
    assert done.returncode == 0, done.stderr
    assert hub.private == {"me/lamps": True} and hub.trees["me/lamps"] == {}
    assert set(hub.branches["me/lamps"]["v1"]) == {path.name for path in (tmp_path / "lamps-1b").iterdir()}
    assert push(tmp_path / "lamps-1b", hub, "--revision", "v1").returncode == 0
    hub.private["me/lamps"] = False
    refused = push(tmp_path / "lamps-1b", hub, "--private")
    assert refused.returncode == 1 and "the model is there and is public, so nothing was sent" in refused.stderr


def test_a_dry_run_shows_what_would_go_and_asks_nobody(run: Run, hub: Hub) -> None:
    done = push(run.path, hub, "--dry-run", token=None)
    assert done.returncode == 0, done.stderr
    assert "bytes would be sent" in done.stdout and "adapter_config.json" in done.stderr
    assert hub.requests == []


@pytest.mark.parametrize(
    ("more", "token", "said"),
    [
        ({}, None, "neither HF_TOKEN nor HUGGING_FACE_HUB_TOKEN is in the environment"),
        ({"HF_HUB_OFFLINE": "1"}, TOKEN, "HF_HUB_OFFLINE is set, so nothing can be pushed"),
    ],
)
def test_what_cannot_be_pushed_ends_before_any_work(
    run: Run, hub: Hub, more: dict[str, str], token: str | None, said: str
) -> None:
    done = push(run.path, hub, token=token, **more)
    assert done.returncode == 2 and said in done.stderr and hub.requests == []


@pytest.mark.parametrize(("status", "fix"), [(401, "the token is not valid"), (403, "or name a model of yours")])
def test_a_refusal_is_one_line_with_the_fix_and_without_the_token(run: Run, hub: Hub, status: int, fix: str) -> None:
    hub.refuse = {"/api/": status}  # the answer echoes the token
    done = push(run.path, hub)
    assert done.returncode == 1 and "the push to the hub failed" in done.stderr and fix in done.stderr
    assert "Traceback" not in done.stderr and TOKEN not in done.stdout + done.stderr and not hub.commits


def test_a_hub_that_is_not_there_is_one_line(run: Run, hub: Hub) -> None:
    done = push(run.path, hub, HF_ENDPOINT="http://127.0.0.1:9")
    assert done.returncode == 1 and "the push to the hub failed" in done.stderr and "Traceback" not in done.stderr


def test_a_name_without_an_owner_is_refused(run: Run, hub: Hub) -> None:
    done = push(run.path, hub, to="lamps")
    assert done.returncode == 2 and "'lamps' is no name of a model on the hub" in done.stderr and hub.requests == []


def changed(run: Run, name: str, content: bytes) -> None:
    """Change a file of the candidate as if `tune sft` had written it so."""
    path = run.student_path("ad") / name
    path.write_bytes(content)
    entry = run.stages()["sft:ad"]
    outputs = {**entry.outputs, f"students/ad/{name}": digest_file(path)}
    manifest = orjson.loads(run.manifest_path.read_bytes())
    manifest["stages"]["sft:ad"]["outputs"] = {key: one.to_json() for key, one in outputs.items()}
    write_json(run.manifest_path, manifest)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (f"log in with {TOKEN}".encode(), "a token of the hub"),
        (b"-----BEGIN " + b"RSA PRIVATE KEY-----", "a private key"),
        (b"https://me:hunter2@proxy.example", "a password in an address"),
        (b'{"_name_or_path": "/' + b'home/ada/models/tiny"}', "a path of this machine"),
        (rb'{"path": "C:\\Users\\ada\\tiny"}', "a path of this machine"),
    ],
)
def test_secrets_and_paths_are_refused_by_file(run: Run, content: bytes, found: str) -> None:
    changed(run, "README.md", content)
    with pytest.raises(RunError, match=f"README.md: the file holds {found}, so nothing is sent"):
        pack(run.path)


def test_a_secret_of_the_environment_and_the_runs_own_path_are_refused(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed(run, "README.md", str(run.path.resolve()).encode())
    with pytest.raises(RunError, match="a path of this machine"):
        pack(run.path)
    changed(run, "README.md", b"the word is swordfish-swordfish")
    pack(run.path)
    monkeypatch.setenv("SOME_API_KEY", "swordfish-swordfish")
    with pytest.raises(RunError, match="a secret of the environment"):
        pack(run.path)


def test_files_that_are_not_as_they_were_left_are_not_sent(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export(run.path, out, ExportConfig(merge=True, parity=False))
    assert pack(out).files["export.json"] == (out / "export.json").stat().st_size
    (out / "config.json").write_text("{}")
    with pytest.raises(RunError, match=r"config.json: the file is not as it was left"):
        pack(out)
    (out / "config.json").unlink()
    (out / "config.json").symlink_to("/etc/hostname")
    with pytest.raises(RunError, match=r"config.json: the file is not as it was left"):
        pack(out)
    report = orjson.loads((out / "export.json").read_bytes())
    write_json(out / "export.json", {**report, "files": {"../../etc/hostname": "0" * 64}})
    with pytest.raises(RunError, match="the list names files elsewhere"):
        pack(out)
