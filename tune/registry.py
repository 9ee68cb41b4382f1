"""The registry: which candidate is in use, and how it came to that.

One file, registry.json, stands in the folder that holds the runs, and `current` beside it leads to the promoted
candidate's folder. The file is the truth. It is written whole before the link is moved, so what a crash between the two
leaves is a link that lags behind; the next call mends it.
"""

import contextlib
import errno
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

import filelock
import orjson

from synth.core.errors import RunError
from synth.core.jsonl import sync_folder, write_json
from synth.core.runs import Run
from synth.core.schemas import check

__all__ = ["CURRENT", "Event", "Registry", "VerdictWord", "behind_link", "place_of"]

REGISTRY_VERSION = 1

# The name of the promoted candidate, wherever a candidate can be named, and of the link to its folder.
CURRENT = "current"

VerdictWord = Literal["accepted", "rejected", "none"]

# A file system that has no links, and one that takes none from this user.
_NO_LINKS = frozenset({errno.EPERM, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP})


@dataclass(frozen=True, slots=True)
class Event:
    """A line of the history: what was put in use, on which grounds.

    Attributes:
        action: "promote", or "rollback" to the candidate that was in use before.
        run: the run's folder name.
        candidate: its name in that run.
        weights_sha256: of its weights as they then were.
        verdict: what the verdict said then; "none" where these weights were not judged.
        verdict_sha256: of that verdict.json.
        forced: whether something spoke against it and `--force` was given.
        reason: the user's own words, and what spoke against it where it was forced.
        time: when, in UTC.
    """

    action: Literal["promote", "rollback"]
    run: str
    candidate: str
    weights_sha256: str
    verdict: VerdictWord
    verdict_sha256: str | None = None
    forced: bool = False
    reason: str = ""
    time: str = ""

    @property
    def path(self) -> Path:
        """The candidate's folder, as seen from the registry's."""
        return Path(self.run) / "students" / self.candidate

    def is_same(self, other: "Event") -> bool:
        """Whether both are about the same weights under the same name."""
        return (self.run, self.candidate, self.weights_sha256) == (other.run, other.candidate, other.weights_sha256)


@dataclass(frozen=True, slots=True)
class Registry:
    """The history of one folder of runs, oldest first. `standing` are the promotions that no rollback took back."""

    folder: Path
    history: tuple[Event, ...] = ()
    standing: tuple[Event, ...] = ()

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Return what the folder's registry.json says; an empty history where there is none.

        Raises:
            RunError: the file cannot be read, or does not add up.
            RecordError: it is not what schemas/registry.schema.json says.
        """
        path = folder / "registry.json"
        try:
            data = orjson.loads(path.read_bytes())
        except FileNotFoundError:
            return cls(folder)
        except (OSError, orjson.JSONDecodeError) as error:
            raise _damaged(path, f"the registry cannot be read ({error})") from error
        version = data.get("version") if isinstance(data, dict) else None
        if version != REGISTRY_VERSION:
            raise RunError(
                f"the registry has version {version}, this program reads {REGISTRY_VERSION}",
                where=str(path),
                fix="use the version of tune that wrote it",
            )
        check(data, "registry", where=str(path))
        registry = cls(folder)
        for number, row in enumerate(data["history"], 1):
            try:
                registry = registry.after(Event(**row))
            except ValueError as error:
                raise _damaged(path, f"entry {number} of the history does not follow from those before it") from error
        if data["current"] != registry._current_json():
            raise _damaged(path, "what is current does not follow from the history")
        return registry

    @property
    def path(self) -> Path:
        """registry.json."""
        return self.folder / "registry.json"

    @property
    def link(self) -> Path:
        """What leads to the promoted candidate."""
        return self.folder / CURRENT

    @property
    def current(self) -> Event | None:
        """The promotion that put the candidate in use that is in use now, or None where there is none."""
        return self.standing[-1] if self.standing else None

    @property
    def previous(self) -> Event | None:
        """The promotion that a rollback goes back to, or None."""
        return self.standing[-2] if len(self.standing) > 1 else None

    def after(self, event: Event) -> Self:
        """Return the registry with one more entry.

        Raises:
            ValueError: a rollback to something else than the one before.
        """
        standing = self.standing
        if event.action == "promote":
            # The same one again, with another verdict for one, is no step that a rollback could go back.
            again = bool(standing) and standing[-1].is_same(event)
            standing = (*(standing[:-1] if again else standing), event)
        elif self.previous is not None and self.previous.is_same(event):
            standing = standing[:-1]
        else:
            raise ValueError("no rollback leads there")
        return replace(self, history=(*self.history, event), standing=standing)

    def record(self, event: Event) -> tuple["Registry", str | None]:
        """Write one more entry, then move the link; return the registry as it is then, and what the user should know.

        Raises:
            RunError: it cannot be written. What was in use still is.
        """
        self.check_link()
        done = self.after(replace(event, time=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())))
        write_json(done.path, done.to_json())
        return done, done.mend_link()

    def to_json(self) -> dict[str, Any]:
        """Return the content of registry.json."""
        return {
            "version": REGISTRY_VERSION,
            "current": self._current_json(),
            "history": [asdict(event) for event in self.history],
        }

    def _current_json(self) -> dict[str, Any] | None:
        now = self.current
        if now is None:
            return None
        return {
            "run": now.run,
            "candidate": now.candidate,
            "path": now.path.as_posix(),
            "weights_sha256": now.weights_sha256,
        }

    def check_link(self) -> None:
        """Make sure that nothing of the user's stands where the link goes.

        Raises:
            RunError: something does.
        """
        # A link of the user's own, to a run for one, is not ours to move.
        ours = self.link.is_symlink() and [*self.link.readlink().parts[1:2]] == ["students"]
        if not ours and (self.link.is_symlink() or self.link.exists()):
            raise RunError(
                "this is where the link to the promoted candidate goes, and something else stands here",
                where=str(self.link),
                fix="rename it (a run's folder may be renamed too)",
            )

    @property
    def link_leads_there(self) -> bool:
        """Whether the link, or the file in its place, is as registry.json has it."""
        if self.link.is_symlink():
            return self.current is not None and self.link.readlink() == self.current.path
        if self.current is None:
            return True
        try:
            return bool(orjson.loads(self._plain.read_bytes()) == self._current_json())
        except (OSError, orjson.JSONDecodeError):
            return False

    @property
    def _plain(self) -> Path:
        """The file in the link's place, where the file system takes no links."""
        return self.folder / f"{CURRENT}.json"

    def mend_link(self) -> str | None:
        """Make the link lead to the promoted candidate, in one step; return what the user should know of it.

        Raises:
            RunError: the folder cannot be written, or something else stands in the link's place.
        """
        if self.current is None or self.link_leads_there:
            return None
        self.check_link()
        try:
            part = self.folder / f".{CURRENT}.part"
            part.unlink(missing_ok=True)
            part.symlink_to(self.current.path, target_is_directory=True)
            part.replace(self.link)
            self._plain.unlink(missing_ok=True)
            sync_folder(self.folder)
        except OSError as error:
            if error.errno not in _NO_LINKS or self.link.is_symlink():
                raise RunError(
                    f"the link to the promoted candidate cannot be moved ({error.strerror or error})",
                    where=str(self.link),
                    fix="registry.json has it already; mend the folder, and the next call moves the link",
                ) from error
            write_json(self._plain, self._current_json())
            return f"no link can be made in {self.folder}: {self._plain.name} names the promoted candidate's folder"
        return None


@contextmanager
def locked(folder: Path, *, seconds: float = 60) -> Iterator[Registry]:
    """Hold the folder's registry for writing, its link mended.

    Raises:
        RunError: another process holds it for longer, or the folder cannot be written.
    """
    lock = filelock.FileLock(folder / ".registry.lock")
    try:
        lock.acquire(timeout=seconds)
    except filelock.Timeout as error:
        raise RunError(
            "another process is changing the registry", where=str(folder / "registry.json"), fix="wait for it"
        ) from error
    except OSError as error:
        raise RunError(
            f"the registry cannot be locked ({error.strerror or error})",
            where=str(folder),
            fix="mend the folder's permissions",
        ) from error
    try:
        for part in (*folder.glob(".registry.json.*.part"), *folder.glob(f".{CURRENT}.json.*.part")):
            part.unlink(missing_ok=True)  # of a write that a kill ended
        registry = Registry.read(folder)
        if registry.history:
            registry.mend_link()
        yield registry
    finally:
        lock.release()


def registry_of(run: Run) -> Registry:
    """Return the registry of the folder that the run is in; a link that lags behind is mended where that can be done.

    Raises:
        RunError: registry.json is damaged.
    """
    folder, _ = place_of(run)
    registry = Registry.read(folder)
    if registry.history and not registry.link_leads_there:
        # Who only reads needs no link, and may not be allowed to write here.
        with contextlib.suppress(RunError), locked(folder, seconds=1) as registry:
            return registry
    return registry


def place_of(run: Run) -> tuple[Path, str]:
    """Return the folder that a run is in, and the run's name there."""
    path = run.path if run.path.name not in {"", ".", ".."} else run.path.resolve()
    return path.parent.resolve(), path.name


def current_in(run: Run) -> Event:
    """Return the promotion of what is current, which has to be a candidate of this run.

    Raises:
        RunError: nothing is promoted, or it is of another run.
    """
    registry = registry_of(run)
    now, (folder, name) = registry.current, place_of(run)
    if now is None:
        raise RunError(
            "no candidate is promoted, so none is current",
            where=str(folder),
            fix=f"run `tune promote {run.path}` first, or name a candidate",
        )
    if now.run != name:
        raise RunError(
            f"what is current is {now.candidate} of the run {now.run}, no candidate of this one",
            where=str(registry.path),
            fix=f"name the run {run.path.parent / now.run}",
        )
    return now


def behind_link(spec: str) -> str:
    """Return the folder that the link `current` leads to now, in place of the link; any other name as it is.

    What is written down has to keep its meaning when another candidate is promoted.
    """
    path = Path(spec).expanduser()
    ours = path.name == CURRENT and path.is_symlink() and (path.parent / "registry.json").is_file()
    return str(path.parent / path.readlink()) if ours else spec


def _damaged(path: Path, what: str) -> RunError:
    return RunError(what, where=str(path), fix="restore it, or move it away and promote again; the runs are untouched")
