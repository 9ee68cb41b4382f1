"""export.json: what an exported folder was made of."""

from pathlib import Path
from typing import Any

import orjson

from synth.core.errors import ConfigError
from synth.inference.weights import weights_revision
from tune.candidate import Candidate

REPORT = "export.json"
REPORT_VERSION = 1


def read_report(folder: Path) -> dict[str, Any]:
    """Return the value of a folder's export.json.

    Raises:
        ConfigError: there is none, or it is not one of ours.
    """
    try:
        report: dict[str, Any] = orjson.loads((folder / REPORT).read_bytes())
        version = report["version"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            "the folder has no export.json that can be read, so nothing says what it was made of",
            where=str(folder),
            fix="name one that `tune export --merge` wrote",
        ) from error
    if version != REPORT_VERSION:
        raise ConfigError(f"export.json has version {version}, this program reads {REPORT_VERSION}", where=str(folder))
    return report


def check_made_of(folder: Path, candidate: Candidate) -> None:
    """Return if a folder holds a merged model of this candidate that vLLM serves.

    Raises:
        ConfigError: it was made of other weights, or is an adapter or a GGUF file.
    """
    report = read_report(folder)
    if report.get("candidate_weights") != weights_revision(candidate.folder):
        raise ConfigError(
            f"the folder was made of {report.get('candidate')!r} with other weights than {candidate.name} has now",
            where=str(folder),
            fix=f"make it again: `tune export {candidate.folder} --merge --to FOLDER`",
        )
    if not (folder / "config.json").is_file():
        raise ConfigError(
            "the folder holds no model that vLLM serves", where=str(folder), fix="export with --merge, without gguf"
        )
