"""The push of a dataset to the hub: one commit with the files and the card."""

import os
import re
from collections.abc import Mapping
from pathlib import Path

from synth.core.hub import check_push, hub_api, make_repo

# Files that an export of ours put there: shards that this one does not have would double the rows.
_SHARD = re.compile(r"data/(?:train|validation)-\d{5}-of-\d{5}\.parquet")


def check_hub(repo: str | None, environment: Mapping[str, str] = os.environ) -> str:
    """Return the name of the dataset on the hub if a push can be tried, before any work is done.

    Raises:
        ConfigError: as `check_push`.
    """
    return check_push(
        repo,
        "dataset",
        flag="--repo",
        instead="export with --format parquet",
        extra="documents",
        environment=environment,
    )


def push(folder: Path, names: list[str], repo: str, *, private: bool, title: str) -> str:
    """Upload the files of an export as one commit and return the address of that commit.

    The dataset is made where there is none. Files that are there already are not sent again, so a push that broke
    off is resumed by running it again; shards of an earlier export that this one does not have are deleted in
    the same commit, and no other file is touched.

    Raises:
        ConfigError: as `check_hub`.
        RunError: the hub refused or cannot be reached, or the dataset is public where a private one was asked for.
    """
    check_hub(repo)
    with hub_api("dataset", flag="--repo", extra="documents") as (api, hub):
        make_repo(api, repo, "dataset", private=private)
        there = api.list_repo_files(repo, repo_type="dataset")
        stale = [name for name in there if _SHARD.fullmatch(name) and name not in names]
        operations = [
            *(hub.CommitOperationAdd(path_in_repo=name, path_or_fileobj=folder / name) for name in names),
            *(hub.CommitOperationDelete(path_in_repo=name) for name in stale),
        ]
        done = api.create_commit(repo, operations, commit_message=f"Add {title}", repo_type="dataset")
    return str(done.commit_url)
