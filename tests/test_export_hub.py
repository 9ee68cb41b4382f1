"""The push: one commit to a hub that runs on this machine, a token from the environment alone that shows up nowhere."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from synth.core.errors import ConfigError
from synth.core.runs import Run
from synth.exporting.hub import check_hub
from tests.conftest import CHECKOUT
from tests.export_runs import decided_run, pair
from tests.fake_hub import Hub, fake_hub

pytest.importorskip("huggingface_hub")
pytest.importorskip("pyarrow")

# Put together here, so that no scanner takes it for a token.
TOKEN = "h" + "f_" + "TopSecretTokenOfTheTests"
FILES = {"data/train-00000-of-00001.parquet", "data/validation-00000-of-00001.parquet", "README.md"}


@pytest.fixture
def hub() -> Iterator[Hub]:
    with fake_hub() as served:
        yield served


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return decided_run(tmp_path / "run")


def push(run: Run, hub: Hub, *flags: str, token: str | None = TOKEN, **more: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING_"))} | {
        "PYTHONPATH": str(CHECKOUT),
        "HF_ENDPOINT": hub.url,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HOME": str(run.path.parent / "hf"),
        "COLUMNS": "300",
        **more,
    }
    if token is not None:
        environment["HF_TOKEN"] = token
    return subprocess.run(
        [sys.executable, "-m", "synth.cli", "export", str(run.path), "--format", "hub", "--repo", "me/lamps", *flags],
        cwd=run.path.parent,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def assert_no_token(folder: Path, *done: subprocess.CompletedProcess[str]) -> None:
    for one in done:
        assert TOKEN not in one.stdout + one.stderr
    for path in folder.rglob("*"):
        assert not path.is_file() or TOKEN.encode() not in path.read_bytes(), path


def test_a_push_is_one_commit_of_the_parquet_files_and_the_card(run: Run, hub: Hub) -> None:
    done = push(run, hub, "--licence", "mit")
    assert done.returncode == 0, done.stderr
    assert [set(commit) for commit in hub.commits] == [FILES]
    tree = hub.trees["me/lamps"]
    folder = run.path / "exports" / "hub"
    assert tree == {name: (folder / name).read_bytes() for name in FILES}
    assert f"Pushed: {hub.url}/datasets/me/lamps/commit/" in done.stdout
    assert b'load_dataset("me/lamps")' in tree["README.md"]
    assert hub.tokens - {""} == {f"Bearer {TOKEN}"}
    assert_no_token(run.path.parent, done)


def test_pushing_again_sends_nothing_twice(run: Run, hub: Hub) -> None:
    first = push(run, hub)
    sent = sum(request.startswith("PUT /lfs/") for request in hub.requests)
    again = push(run, hub)
    assert (first.returncode, again.returncode) == (0, 0), again.stderr
    assert sent == 2
    assert sum(request.startswith("PUT /lfs/") for request in hub.requests) == sent
    assert len(hub.commits) == 1


def test_a_push_that_broke_off_is_resumed_by_running_it_again(run: Run, hub: Hub) -> None:
    hub.refuse = {"/commit/": 403}
    broken = push(run, hub)
    assert broken.returncode == 1
    assert len(hub.objects) == 2 and not hub.commits
    hub.refuse = {}
    sent = len([r for r in hub.requests if r.startswith("PUT")])
    assert push(run, hub).returncode == 0
    assert len([r for r in hub.requests if r.startswith("PUT")]) == sent
    assert set(hub.trees["me/lamps"]) == FILES


def test_shards_of_an_earlier_push_go_and_files_of_others_stay(tmp_path: Path, hub: Hub) -> None:
    records = [pair(n, answer=f"{n} " + "x" * 9000, document=f"{n}.md") for n in range(300)]
    run = decided_run(tmp_path / "run", records, validation=("7.md",))
    assert push(run, hub, "--max-shard-mb", "1").returncode == 0
    hub.trees["me/lamps"]["notes.txt"] = b"theirs"
    assert push(run, hub).returncode == 0
    assert set(hub.trees["me/lamps"]) == FILES | {"notes.txt"}


def test_a_private_push_makes_a_private_dataset_and_refuses_a_public_one(run: Run, hub: Hub) -> None:
    assert push(run, hub, "--private").returncode == 0
    assert hub.private == {"me/lamps": True}
    hub.private["me/lamps"] = False
    commits = len(hub.commits)
    refused = push(run, hub, "--private")
    assert refused.returncode == 1
    assert "the dataset is there and is public, so nothing was sent" in refused.stderr
    assert len(hub.commits) == commits


@pytest.mark.parametrize(("status", "fix"), [(401, "the token is not valid"), (403, "the token may not write there")])
def test_a_refusal_is_one_line_with_the_fix_and_without_the_token(run: Run, hub: Hub, status: int, fix: str) -> None:
    hub.refuse = {"/api/": status}  # the answer echoes the token
    done = push(run, hub)
    assert done.returncode == 1
    assert "the push to the hub failed" in done.stderr and fix in done.stderr
    assert "Traceback" not in done.stderr
    assert_no_token(run.path.parent, done)
    assert not hub.commits


def test_a_hub_that_is_not_there_is_one_line_without_the_token(run: Run, hub: Hub) -> None:
    done = push(run, hub, HF_ENDPOINT="http://127.0.0.1:9")
    assert done.returncode == 1
    assert "the push to the hub failed" in done.stderr
    assert "Traceback" not in done.stderr
    assert_no_token(run.path.parent, done)


def test_without_a_token_it_ends_before_any_work(run: Run, hub: Hub) -> None:
    # A token in the hub client's own file is not ours to take.
    (run.path.parent / "hf").mkdir()
    (run.path.parent / "hf" / "token").write_text(TOKEN)
    done = push(run, hub, token=None)
    assert done.returncode == 2
    assert "neither HF_TOKEN nor HUGGING_FACE_HUB_TOKEN is in the environment" in done.stderr
    assert not (run.path / "exports").exists()
    assert hub.requests == []


def test_the_older_name_of_the_token_is_taken(run: Run, hub: Hub) -> None:
    done = push(run, hub, token=None, HUGGING_FACE_HUB_TOKEN=TOKEN)
    assert done.returncode == 0, done.stderr
    assert hub.tokens - {""} == {f"Bearer {TOKEN}"}


def test_offline_it_ends_before_any_work(run: Run, hub: Hub) -> None:
    done = push(run, hub, HF_HUB_OFFLINE="1")
    assert done.returncode == 2
    assert "HF_HUB_OFFLINE is set, so nothing can be pushed" in done.stderr
    assert hub.requests == [] and not (run.path / "exports").exists()


@pytest.mark.parametrize("repo", [None, "", "lamps", "me/", "/lamps", "me/lamps/x", "me/../x", "me/a--b", "a b/c"])
def test_a_name_that_is_no_dataset_is_refused(repo: str | None) -> None:
    environment: dict[str, Any] = {"HF_TOKEN": TOKEN}
    with pytest.raises(ConfigError):
        check_hub(repo, environment)
    assert check_hub("me/lamps.v1_x", environment) == "me/lamps.v1_x"


def test_no_flag_takes_a_token(run: Run, hub: Hub) -> None:
    done = push(run, hub, "--token", "x")
    assert done.returncode == 2
    assert "No such option" in done.stderr
