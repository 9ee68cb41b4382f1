"""The push to the hub: one commit with the files and the card. The token comes from the environment alone."""

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from synth.core.errors import ConfigError, RunError

TOKEN_NAMES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
_REPO = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
# Files that an export of ours put there: shards that this one does not have would double the rows.
_SHARD = re.compile(r"data/(?:train|validation)-\d{5}-of-\d{5}\.parquet")
_TRUE = frozenset(("1", "on", "yes", "true"))


def check_hub(repo: str | None, environment: Mapping[str, str] = os.environ) -> str:
    """Return the name of the dataset on the hub if a push can be tried, before any work is done.

    Raises:
        ConfigError: no repo, or one without owner; no token in the environment; HF_HUB_OFFLINE is set; the
            package huggingface_hub is not installed.
    """
    if not repo:
        raise ConfigError(
            "the format hub needs the name of a dataset", where="--repo", fix="name it: --repo OWNER/NAME"
        )
    if not _REPO.fullmatch(repo) or "--" in repo or ".." in repo:
        raise ConfigError(f"{repo!r} is no name of a dataset on the hub", where="--repo", fix="write owner/name")
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        if environment.get(name, "").lower() in _TRUE:
            raise ConfigError(
                f"{name} is set, so nothing can be pushed", fix="unset it, or export with --format parquet"
            )
    if _token(environment) is None:
        raise ConfigError(
            f"a push to the hub needs a token, and neither {TOKEN_NAMES[0]} nor {TOKEN_NAMES[1]} is in the environment",
            fix="make one with write access on the hub, and set HF_TOKEN; there is no flag for it",
        )
    _load()
    return repo


def _token(environment: Mapping[str, str]) -> str | None:
    found = (environment.get(name, "").strip() for name in TOKEN_NAMES)
    return next(filter(None, found), None)


def _load() -> Any:  # noqa: ANN401  (a module that may be missing)
    try:
        import huggingface_hub
    except ImportError as error:
        raise ConfigError(
            "a push to the hub needs huggingface_hub", fix="install it with `pip install 'synth-tune[documents]'`"
        ) from error
    return huggingface_hub


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
    token, hub = _token(os.environ), _load()
    api = hub.HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None, token=token)
    if not sys.stderr.isatty():
        hub.utils.disable_progress_bars()
    try:
        api.create_repo(repo, repo_type="dataset", private=private, exist_ok=True)
        if private and not api.repo_info(repo, repo_type="dataset").private:
            raise RunError(
                "the dataset is there and is public, so nothing was sent",
                where=repo,
                fix="make it private on the hub, name another one, or leave --private out",
            )
        there = api.list_repo_files(repo, repo_type="dataset")
        stale = [name for name in there if _SHARD.fullmatch(name) and name not in names]
        operations = [
            *(hub.CommitOperationAdd(path_in_repo=name, path_or_fileobj=folder / name) for name in names),
            *(hub.CommitOperationDelete(path_in_repo=name) for name in stale),
        ]
        done = api.create_commit(repo, operations, commit_message=f"Add {title}", repo_type="dataset")
    except RunError:
        raise
    # The client raises many kinds (its own, httpx's, OSError, ValueError), and all end the same way here.
    except Exception as error:
        fault = _fault(error, str(token))
        # A chained error would show the token to whoever prints the chain, where an answer of the server holds it.
        raise fault from (None if str(token) in repr(error) + str(error) else error)
    return str(done.commit_url)


def _fault(error: Exception, token: str) -> RunError:
    said = " ".join(str(error).replace(token, "***").split())[:300]
    status = getattr(getattr(error, "response", None), "status_code", None)
    fix = {
        401: "the token is not valid: make a new one",
        403: "the token may not write there: give it write access, or name a dataset of yours",
        404: "name a dataset that is yours: --repo OWNER/NAME",
    }.get(status or 0, "run the same command again: files that arrived are not sent again")
    return RunError(f"the push to the hub failed ({type(error).__name__}: {said})", fix=fix)
