"""What every push to the hub has in common: a checked name, a token from the environment alone, errors without it."""

import importlib
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

from synth.core.errors import ConfigError, RunError, SynthError

TOKEN_NAMES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
_REPO = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
_TRUE = frozenset(("1", "on", "yes", "true"))

Kind = Literal["dataset", "model"]


def check_push(
    repo: str | None,
    kind: Kind,
    *,
    flag: str,
    instead: str,
    extra: str,
    environment: Mapping[str, str] = os.environ,
) -> str:
    """Return the name on the hub if a push can be tried, before any work is done.

    Args:
        repo: as the user wrote it.
        kind: what is pushed.
        flag: where the name is written.
        instead: what can be done without the hub.
        extra: the extra that installs huggingface_hub.
        environment: where the token and the hub's switches are.

    Raises:
        ConfigError: no repo, or one without owner; no token in the environment; HF_HUB_OFFLINE is set; the
            package huggingface_hub is not installed.
    """
    if not repo:
        raise ConfigError(f"a push needs the name of a {kind}", where=flag, fix=f"name it: {flag} OWNER/NAME")
    if not _REPO.fullmatch(repo) or "--" in repo or ".." in repo:
        raise ConfigError(f"{repo!r} is no name of a {kind} on the hub", where=flag, fix="write owner/name")
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        if environment.get(name, "").lower() in _TRUE:
            raise ConfigError(f"{name} is set, so nothing can be pushed", fix=f"unset it, or {instead}")
    if hub_token(environment) is None:
        raise ConfigError(
            f"a push to the hub needs a token, and neither {TOKEN_NAMES[0]} nor {TOKEN_NAMES[1]} is in the environment",
            fix="make one with write access on the hub, and set HF_TOKEN; there is no flag for it",
        )
    load_hub(extra)
    return repo


def hub_token(environment: Mapping[str, str] = os.environ) -> str | None:
    """Return the token of the environment; the hub client's own file is not looked at."""
    found = (environment.get(name, "").strip() for name in TOKEN_NAMES)
    return next(filter(None, found), None)


def load_hub(extra: str) -> Any:  # noqa: ANN401  (a module that may be missing)
    """Import huggingface_hub.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import huggingface_hub
    except ImportError as error:
        raise ConfigError(
            "a push to the hub needs huggingface_hub", fix=f"install it with `pip install 'synth-tune[{extra}]'`"
        ) from error
    return huggingface_hub


@contextmanager
def hub_api(kind: Kind, *, flag: str, extra: str) -> Iterator[tuple[Any, Any]]:
    """Give an `HfApi` and its module; whatever goes wrong in the block is one error in plain words.

    Raises:
        RunError: the hub refused or cannot be reached.
    """
    token, hub = hub_token(), load_hub(extra)
    if not sys.stderr.isatty():
        importlib.import_module("huggingface_hub.utils").disable_progress_bars()
    try:
        yield hub.HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None, token=token), hub
    except SynthError:
        raise
    # The client raises many kinds (its own, httpx's, OSError, ValueError), and all end the same way here.
    except Exception as error:
        fault = _fault(error, str(token), kind, flag)
        # A chained error would show the token to whoever prints the chain, where an answer of the server holds it.
        raise fault from (None if str(token) in repr(error) + str(error) else error)


def make_repo(api: Any, repo: str, kind: Kind, *, private: bool) -> None:  # noqa: ANN401
    """Make the dataset or model where there is none.

    Raises:
        RunError: it is public where a private one was asked for.
    """
    api.create_repo(repo, repo_type=kind, private=private, exist_ok=True)
    if private and not api.repo_info(repo, repo_type=kind).private:
        raise RunError(
            f"the {kind} is there and is public, so nothing was sent",
            where=repo,
            fix="make it private on the hub, name another one, or leave --private out",
        )


def _fault(error: Exception, token: str, kind: Kind, flag: str) -> RunError:
    said = " ".join(str(error).replace(token, "***").split())[:300]
    status = getattr(getattr(error, "response", None), "status_code", None)
    fix = {
        401: "the token is not valid: make a new one",
        403: f"the token may not write there: give it write access, or name a {kind} of yours",
        404: f"name a {kind} that is yours: {flag} OWNER/NAME",
    }.get(status or 0, "run the same command again: files that arrived are not sent again")
    return RunError(f"the push to the hub failed ({type(error).__name__}: {said})", fix=fix)
