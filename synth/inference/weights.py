"""What identifies a model's weights: a name without a machine's path, and a digest of a local folder."""

import hashlib
from pathlib import Path

from synth.core.errors import InferenceError

# Files beside the weights that say how they came about; the engine reads none of them.
_NOT_SERVED = frozenset({"export.json", "training.json", "training_args.bin", "trainer_state.json"})


def model_name(model: str | Path) -> str:
    """Return the hub id, or the last part of a folder's path: never a path of this machine."""
    text = str(model)
    is_path = isinstance(model, Path) or text.startswith(("/", ".", "~")) or text.count("/") > 1
    if is_path or Path(text).is_dir():
        return Path(text).expanduser().resolve().name
    return text


def weights_revision(model: str | Path) -> str:
    """Return 16 hexadecimal digits over the files that an engine loads from a folder; for a hub id "".

    Counted are the names and the bytes of the files directly in the folder. Hidden files, model cards
    (`*.md`) and the trainer's own notes are left out: they change no reply.

    Raises:
        InferenceError: a file in the folder cannot be read.
    """
    folder = Path(model).expanduser()
    if not folder.is_dir():
        return ""
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir(), key=lambda p: p.name):
        hidden = path.name.startswith(".") or path.suffix == ".md" or path.name in _NOT_SERVED
        if hidden or not path.is_file():
            continue
        try:
            with path.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").digest()
        except OSError as error:
            raise InferenceError(
                f"a file of the model cannot be read ({error.strerror})",
                where=str(path),
                fix="mend its permissions",
            ) from error
        digest.update(path.name.encode() + b"\0" + content)
    return digest.hexdigest()[:16]
