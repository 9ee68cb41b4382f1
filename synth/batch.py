"""Batch: the calls of a run as files for a batch service, and the service's files back into the run.

A round is the generate stage with an endpoint that makes no call. What the journal does not answer is
written to a request file on the way out, and looked up in the output files on the way back; everything
else (prompts, seeds, schemas, checks, order) is the online path itself. A generator whose second call
needs the answer to its first takes two rounds.

    RUN/batch/job.json           documents and settings, so that later rounds need none
    RUN/batch/round-0001/        requests-00001-of-00002.jsonl, …
    RUN/batch/failures.jsonl     requests that came back with an error, and how often
    RUN/batch/waiting.jsonl      answers that no unit has asked for yet
"""

import asyncio
import hashlib
import os
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence, Set
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import IO, Any

import orjson

from synth.core.calls import ChatRequest, Completion, Endpoint
from synth.core.config import build
from synth.core.errors import ConfigError, InferenceError, RefusedError, RunError
from synth.core.jsonl import MAX_LINE_BYTES, read_lines, sync_folder, write_json, write_jsonl
from synth.core.runs import Run
from synth.generate import GenerateConfig, GenerateSummary, Progress, UnitsLeft, run_generate
from synth.generation.gate import CallRefused
from synth.generators.find import split_spec
from synth.inference.journal import Journal
from synth.inference.payload import chat_body
from synth.inference.replies import completion_of, message_of, quote

# The limits of OpenAI's batch service for one file: 50,000 requests and 200 MB.
REQUESTS_PER_FILE = 50_000
BYTES_PER_FILE = 200_000_000

JOB_VERSION = 1
_URL = "/v1/chat/completions"
# A line of ours begins so; the key is read from there, which is far cheaper than parsing the prompt behind it.
_HEAD = b'{"custom_id":"'
_NO_ID = "without-id-"
_UNFIT = ("num_records", "max_calls", "max_tokens_total", "max_cost", "deadline")


@dataclass(frozen=True, slots=True)
class BatchJob:
    """What a batch asks: as for `run_generate`, with the model's name at the batch service.

    `logprobs` asks for each token's log probability; `tries` is how often a request that comes back with
    an error is sent before it counts as a call without answer.
    """

    documents: tuple[str, ...]
    teacher: str
    generate: GenerateConfig = field(default_factory=lambda: build(GenerateConfig))
    revision: str = ""
    tokenizer: str | None = None
    logprobs: bool = False
    tries: int = 3

    def to_json(self) -> dict[str, Any]:
        """Return what stands in job.json."""
        return {
            "version": JOB_VERSION,
            "documents": list(self.documents),
            "teacher": self.teacher,
            "revision": self.revision,
            "tokenizer": self.tokenizer,
            "logprobs": self.logprobs,
            "tries": self.tries,
            "generate": self.generate.model_dump(mode="json"),
        }


@dataclass(frozen=True, slots=True)
class ExportSummary:
    """What an export wrote.

    `requests` stand in `files`; `outstanding` were written in an earlier round and have no output yet.
    `finished` is the stage's summary where every call is answered, and nothing was written.
    """

    round: int | None
    requests: int
    files: tuple[Path, ...]
    outstanding: int
    finished: GenerateSummary | None = None


@dataclass(frozen=True, slots=True)
class CollectSummary:
    """What became of the lines of output files: lines = answered + waiting + repeated + failed + unknown + unreadable.

    `answered` went into the journal; `waiting` answer calls that no unit has asked for yet; `repeated` were
    collected before, or are errors of requests that have an answer; `failed` are errors, sent again in the
    next round; `unknown` have a custom_id of no request of this run. `problems` quotes the last three kinds
    with their places. `next_round` requests are needed now; `outstanding` ones have no output yet. `finished`
    is the stage's summary where none is left.
    """

    lines: int
    answered: int
    waiting: int
    repeated: int
    failed: int
    unknown: int
    unreadable: int
    problems: tuple[str, ...]
    next_round: int
    outstanding: int
    finished: GenerateSummary | None = None


async def export_batch(
    run: Run,
    job: BatchJob | None = None,
    *,
    again: bool = False,
    requests_per_file: int = REQUESTS_PER_FILE,
    bytes_per_file: int = BYTES_PER_FILE,
    out: Path | None = None,
    stop: asyncio.Event | None = None,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> ExportSummary:
    """Write the calls that have no answer as files of a new round; where none is left, finish the stage.

    Args:
        run: the run; it needs a `job` the first time and none afterwards.
        job: what to ask.
        again: write also the requests of earlier rounds that have no output, which may then be paid twice.
        requests_per_file: the most requests of one file.
        bytes_per_file: the most bytes of one file.
        out: a folder that gets a copy of the round's folder.
        stop: set to stop; nothing is written.
        on_progress: called as `run_generate` does.

    Raises:
        ConfigError: the first export has no job, a later one another, or a setting does not fit batches.
        RunError: every call that is left is in an earlier round and has no output yet.
        Interrupted: `stop` was set.
    """
    with _locked(run) as folder:
        job = _the_job(folder, job)
        state = _State(folder)
        with _Writer(folder / ".round.part", requests_per_file, bytes_per_file) as writer:

            def ask(key: str, request: ChatRequest) -> None:
                if again or not state.is_out(key):
                    writer.write(key, chat_body(request, job.teacher, logprobs=job.logprobs))
                else:
                    outstanding.add(_slot(key))

            outstanding: set[bytes] = set()
            with _Outputs([folder / "waiting.jsonl"]) as answers:
                finished = await _replay(run, job, _BatchEndpoint(job, answers, state, ask), stop, on_progress)
            if finished is not None:
                return ExportSummary(None, 0, (), 0, finished)
            if not writer.requests:
                raise RunError(
                    f"all {len(outstanding)} calls that are left are in round {state.rounds} and have no output yet",
                    where=str(folder),
                    fix=f"`synth batch collect {run.path} FILES`, or export with --again if their output is lost",
                )
            number = state.rounds + 1
            files = writer.finish(folder / f"round-{number:04d}")
        if out is not None:
            _copy(files, out / files[0].parent.name)
        return ExportSummary(number, writer.requests, files, len(outstanding))


async def collect_batch(
    run: Run,
    files: Sequence[Path],
    *,
    stop: asyncio.Event | None = None,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> CollectSummary:
    """Take the output files of a batch service into the run; collecting a file twice changes nothing.

    Each reply is read and checked as one that came over HTTP. Where no call is left, the generate stage
    is finished and the run is what the online path would have made of the same replies.

    Args:
        run: a run that `export_batch` was called for.
        files: output files, and error files where the service writes errors apart; of any round, in any order.
        stop: set to stop; what was taken until then is in the journal.
        on_progress: called as `run_generate` does.

    Raises:
        RunError: there is no batch here, a file cannot be read, or no line of them belongs to this run.
        Interrupted: `stop` was set.
    """
    if not (run.path / "batch").is_dir():
        raise _no_batch(run.path)
    with _locked(run) as folder:
        job = _the_job(folder, None)
        state = _State(folder)
        needed, outstanding = set[bytes](), set[bytes]()
        waiting_path = folder / "waiting.jsonl"
        with _Outputs([waiting_path, *files]) as answers:
            counts = _Counts()
            bad = list(answers.bad())
            answered = await _answered(run, {line.key for line in bad}, answers)
            for line in bad:
                counts.take(line, state, answered)
            state.save()

            def ask(key: str, request: ChatRequest) -> None:
                (outstanding if state.is_out(key) else needed).add(_slot(key))

            finished = await _replay(run, job, _BatchEndpoint(job, answers, state, ask), stop, on_progress)
            waiting = [line async for line in _waiting(run, answers, state, counts)]
            lines = answers.lines
            counts.repeated += answers.doubled
            taken = lines - counts.total
            if lines and not taken and counts.unknown + counts.unreadable == lines:
                raise RunError(
                    f"none of {lines} lines belongs to this run; {counts.problems[0]}",
                    where=", ".join(map(str, files)),
                    fix="collect the output of the files that `synth batch export` wrote for it",
                )
            if waiting or waiting_path.exists():
                write_jsonl(waiting_path, waiting)
        return CollectSummary(
            lines=lines,
            answered=taken,
            waiting=counts.waiting,
            repeated=counts.repeated,
            failed=counts.failed,
            unknown=counts.unknown,
            unreadable=counts.unreadable,
            problems=tuple(counts.problems),
            next_round=len(needed),
            outstanding=len(outstanding),
            finished=finished,
        )


def _the_job(folder: Path, given: BatchJob | None) -> BatchJob:
    """Return the job of job.json, written there the first time; until there is a round, another takes its place."""
    path = folder / "job.json"
    if given is not None:
        given = _checked(given)
        if not any(folder.glob("round-*")):
            write_json(path, given.to_json())
            return given
    elif not path.exists():
        raise _no_batch(folder.parent)
    stored = _read_job(path)
    if given is not None and given != stored:
        names = [name for name, value in given.to_json().items() if value != stored.to_json()[name]]
        raise ConfigError(
            f"the batch of this run was begun with other settings ({', '.join(names)})",
            where=str(path),
            fix="leave DOCS and the settings out to go on with it, or name a new run",
        )
    return stored


def _no_batch(path: Path) -> ConfigError:
    return ConfigError(
        "there is no batch here yet", where=str(path), fix="`synth batch export RUN DOCS --teacher NAME` begins one"
    )


def _checked(job: BatchJob) -> BatchJob:
    for name in _UNFIT:
        if getattr(job.generate, name) is not None:
            raise ConfigError(
                f"{name} does not fit batches: a round is written before any of its answers is known",
                where="generate",
                fix="bound the work with max_passages"
                + (", and the dataset with `synth filter --num-records`" if name == "num_records" else ""),
            )
    if job.tries < 1:
        raise ConfigError("a request is sent at least once", where="tries")
    return _with_whole_paths(job)


def _with_whole_paths(job: BatchJob) -> BatchJob:
    """Return the job with absolute paths: a later round may be made from another folder."""
    generate = job.generate
    parts = {part: _whole(part) for spec in generate.generator for part in chain(*_split(spec))}
    settings = {
        "generator": tuple("+".join(parts[part] for part in chain(*_split(spec))) for spec in generate.generator),
        "options": {
            parts.get(name, name): {key: _whole_file(value) for key, value in table.items()}
            for name, table in generate.options.items()
        },
        "examples": generate.examples and str(Path(generate.examples).resolve()),
    }
    return replace(
        job,
        documents=tuple(d if d.startswith("hub:") else str(Path(d).resolve()) for d in job.documents),
        tokenizer=job.tokenizer
        and (str(Path(job.tokenizer).resolve()) if Path(job.tokenizer).exists() else job.tokenizer),
        generate=generate.model_copy(update=settings),
    )


def _split(spec: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    base, modifiers = split_spec(spec)
    return (base,), modifiers


def _whole(part: str) -> str:
    """Return a part of a generator's spec with the whole path of its file, where it names one."""
    location, colon, name = part.rpartition(":")
    path = location or name
    if not path.endswith((".py", ".md")):
        return part
    return str(Path(path).resolve()) + (f"{colon}{name}" if colon else "")


def _whole_file(value: object) -> object:
    """Return an option's value with the whole path, where it names a file (a rubric, a list of persons)."""
    if not isinstance(value, str) or not os.path.isfile(value):  # noqa: PTH113 - most texts are no names at all
        return value
    return str(Path(value).resolve()) if Path(value).suffix else value


def _read_job(path: Path) -> BatchJob:
    try:
        data = orjson.loads(path.read_bytes())
        if data.pop("version") != JOB_VERSION:
            raise ValueError("another version of synth wrote it")
        generate = build(GenerateConfig, data.pop("generate"), where=str(path))
        return BatchJob(documents=tuple(data.pop("documents")), generate=generate, **data)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(
            f"the batch's settings cannot be read ({error})",
            where=str(path),
            fix="restore the file, or start a new run",
        ) from error


async def _replay(
    run: Run,
    job: BatchJob,
    endpoint: "_BatchEndpoint",
    stop: asyncio.Event | None,
    on_progress: Callable[[Progress], None],
) -> GenerateSummary | None:
    """Run the generate stage against what is there; None where calls are left."""

    @asynccontextmanager
    async def opening() -> AsyncIterator[Endpoint]:
        yield endpoint

    try:
        return await run_generate(
            run,
            job.documents,
            job.generate,
            opening(),
            teacher_name=job.teacher,
            teacher_revision=job.revision,
            tokenizer=job.tokenizer,
            finish_partly=False,
            stop=stop,
            on_progress=on_progress,
        )
    except UnitsLeft:
        return None


class _BatchEndpoint:
    """Answers from output files; what they do not answer is told to `ask`, and the unit is left for later."""

    def __init__(
        self, job: BatchJob, answers: "_Outputs", state: "_State", ask: Callable[[str, ChatRequest], None]
    ) -> None:
        self._job, self._answers, self._state, self._ask = job, answers, state, ask

    @property
    def model(self) -> str:
        """The model's name at the service."""
        return self._job.teacher

    @property
    def revision(self) -> str:
        """The revision that the user named, or an empty string."""
        return self._job.revision

    async def complete(self, request: ChatRequest) -> Completion:
        """Return the answer that was collected.

        Raises:
            RefusedError: the request came back with an error as often as it may.
            CallRefused: there is no answer yet.
        """
        key = request.key(self.model, self.revision)
        completion = self._answers.take(key)
        if completion is not None:
            return completion
        tried = self._state.tries(key)
        if tried >= self._job.tries:
            raise RefusedError(f"no answer in {tried} tries; the last error: {self._state.reason(key)}")
        self._ask(key, request)
        raise CallRefused("the batch has no answer for this call yet")


class _Writer:
    """Writes requests to numbered files below the limits; they get their names when all are written."""

    def __init__(self, folder: Path, requests_per_file: int, bytes_per_file: int) -> None:
        self.requests = 0
        self._folder, self._most, self._most_bytes = folder, requests_per_file, bytes_per_file
        self._written: set[bytes] = set()
        self._files: list[Path] = []
        self._file: IO[bytes] | None = None
        self._in_file = self._bytes = 0

    def __enter__(self) -> "_Writer":
        shutil.rmtree(self._folder, ignore_errors=True)
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def write(self, key: str, body: Mapping[str, Any]) -> None:
        """Write a request, once for each key."""
        if _slot(key) in self._written:
            return
        self._written.add(_slot(key))
        row = {"custom_id": key, "method": "POST", "url": _URL, "body": body}
        line = orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_NON_STR_KEYS)
        if len(line) > self._most_bytes:
            raise RunError(
                f"one request has {len(line)} bytes, and a file takes {self._most_bytes}",
                fix="make the passages smaller",
            )
        try:
            if self._file is None or self._in_file == self._most or self._bytes + len(line) > self._most_bytes:
                self._next()
            assert self._file is not None
            self._file.write(line)
        except OSError as error:
            raise self._unwritable(error) from error
        self._in_file += 1
        self._bytes += len(line)
        self.requests += 1

    def finish(self, folder: Path) -> tuple[Path, ...]:
        """Name the files and put their folder in its place, whole."""
        try:
            self._close()
            names = [f"requests-{i:05d}-of-{len(self._files):05d}.jsonl" for i in range(1, len(self._files) + 1)]
            for path, name in zip(self._files, names, strict=True):
                path.rename(self._folder / name)
            sync_folder(self._folder)
            self._folder.rename(folder)
            sync_folder(folder.parent)
        except OSError as error:
            raise self._unwritable(error) from error
        return tuple(folder / name for name in names)

    def _next(self) -> None:
        self._close()
        self._folder.mkdir(parents=True, exist_ok=True)
        self._files.append(self._folder / f"{len(self._files) + 1}.part")
        self._file = self._files[-1].open("wb")
        self._in_file = self._bytes = 0

    def _close(self) -> None:
        if self._file is not None:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()

    def _unwritable(self, error: OSError) -> RunError:
        return RunError(
            f"the requests cannot be written ({error.strerror or error})",
            where=str(self._folder.parent),
            fix="free some disk space or mend the permissions, then export again",
        )


class _State:
    """Which requests were written in which round, and which came back with an error."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "failures.jsonl"
        # The round in which a request was last written, and how often those that were written more than once.
        self._exported: dict[bytes, int] = {}
        self._times: Counter[bytes] = Counter()
        self._failures: dict[str, list[dict[str, Any]]] = {}
        found = sorted(path for path in folder.glob("round-*") if path.name[6:].isdecimal())
        self.rounds = max((int(path.name[6:]) for path in found), default=0)
        for path in found:
            for file in sorted(path.glob("requests-*.jsonl")):
                for slot in map(_slot, _keys(file)):
                    if slot in self._exported:
                        self._times[slot] = (self._times[slot] or 1) + 1
                    self._exported[slot] = int(path.name[6:])
        if self._path.exists():
            for _, row in read_lines(self._path):
                self._failures.setdefault(row["custom_id"], []).append(row)

    def was_exported(self, key: str) -> bool:
        """Whether the key is that of a request of any round."""
        return _slot(key) in self._exported

    def is_out(self, key: str) -> bool:
        """Whether a copy of the request was written that has come back neither with an answer nor with an error."""
        slot, rows = _slot(key), self._failures.get(key, [])
        since = self._exported.get(slot, 0) > max((row["round"] for row in rows), default=0)
        return since or self._times[slot] > len(rows)

    def tries(self, key: str) -> int:
        """How many errors came back for the request."""
        return len(self._failures.get(key, ()))

    def reason(self, key: str) -> str:
        """Why the last of them."""
        return str(self._failures[key][-1]["reason"])

    def failed(self, line: "_Line") -> bool:
        """Note an error; return whether it is a new one."""
        rows = self._failures.setdefault(line.key, [])
        if any(row["id"] == line.id for row in rows):
            return False
        if rows and line.id.startswith(_NO_ID) and not self.is_out(line.key):
            return False  # a copy of the file
        rows.append({"custom_id": line.key, "id": line.id, "round": self.rounds, "reason": line.reason})
        return True

    def save(self) -> None:
        """Write what is known of errors."""
        rows = [row for rows in self._failures.values() for row in rows]
        if rows:
            write_jsonl(self._path, rows)


@dataclass(slots=True)
class _Line:
    """One line of an output file: whose it is, where it stands, and what is wrong with it ("" for a good one).

    `counts` is 0 for lines of waiting.jsonl, which were counted when they were first read.
    """

    key: str
    id: str
    where: str
    reason: str
    place: tuple[int, int, int]
    counts: int


@dataclass(slots=True)
class _Counts:
    waiting: int = 0
    repeated: int = 0
    failed: int = 0
    unknown: int = 0
    unreadable: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        return self.waiting + self.repeated + self.failed + self.unknown + self.unreadable

    def take(self, line: _Line, state: _State, answered: Set[str]) -> None:
        """Count a line that is not good; an error of a request that another copy answered is none."""
        if not line.key:
            self.unreadable += 1
            self.problems.append(f"{line.where}: {line.reason}")
        elif not state.was_exported(line.key):
            self.stranger(line)
        elif line.key not in answered and state.failed(line):
            self.failed += 1
            self.problems.append(f"{line.where}: {line.reason}")
        else:
            self.repeated += 1

    def stranger(self, line: _Line) -> None:
        """Count a line that belongs to no request of the run."""
        self.unknown += line.counts
        self.problems.append(f"{line.where}: custom_id {quote(line.key)[:80]!r} is of no request of this run")


class _Outputs:
    """The lines of output files: good ones as places in the files, the others with what is wrong."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.lines = self.doubled = 0
        self._paths = [path for path in paths if path.name != "waiting.jsonl" or path.exists()]
        self._files: list[IO[bytes]] = []
        self._good: dict[bytes, tuple[int, int, int]] = {}
        self._bad: list[_Line] = []

    def __enter__(self) -> "_Outputs":
        try:
            for path in self._paths:
                self._files.append(path.open("rb"))
        except OSError as error:
            self.__exit__()
            raise RunError(f"cannot be read ({error.strerror})", where=str(path)) from error
        for number in range(len(self._paths)):
            for line in self._read(number):
                slot = _slot(line.key)
                if line.reason:
                    self._bad.append(line)
                elif slot in self._good:
                    self.doubled += line.counts
                else:
                    self._good[slot] = line.place
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files:
            file.close()

    def bad(self) -> Iterator[_Line]:
        """Yield the lines that hold no answer."""
        yield from self._bad

    def holds(self, key: str) -> bool:
        """Whether there is a good line under a key that nobody took yet."""
        return _slot(key) in self._good

    def take(self, key: str) -> Completion | None:
        """Return the answer under a key, or None; what is taken is used."""
        place = self._good.pop(_slot(key), None)
        return None if place is None else completion_of(orjson.dumps(self._row(place)["response"]["body"]), key)

    @property
    def left(self) -> int:
        """How many good lines nobody took yet."""
        return len(self._good)

    def unused(self) -> Iterator[tuple[_Line, Any]]:
        """Yield the good lines that nobody took, and their values."""
        for place in self._good.values():
            row = self._row(place)
            yield self._line(place, orjson.dumps(row)), row

    def _row(self, place: tuple[int, int, int]) -> Any:  # noqa: ANN401  (any JSON)
        file = self._files[place[0]]
        file.seek(place[1])
        return orjson.loads(file.readline())

    def _read(self, number: int) -> Iterator[_Line]:
        file, offset, row = self._files[number], 0, 0
        while text := file.readline(MAX_LINE_BYTES):
            row += 1
            if text.strip():
                line = self._line((number, offset, row), text)
                self.lines += line.counts
                yield line
            offset += len(text)

    def _line(self, place: tuple[int, int, int], text: bytes) -> _Line:
        path = self._paths[place[0]]
        where = f"{path}:{place[2]}"
        counts = int(path.name != "waiting.jsonl")
        try:
            data = orjson.loads(text)
        except orjson.JSONDecodeError as error:
            return _Line("", "", where, f"the line is torn or not JSON ({error})", place, counts)
        key = data.get("custom_id") if isinstance(data, dict) else None
        if not isinstance(key, str) or not key:
            return _Line("", "", where, "the line has no custom_id", place, counts)
        own = data.get("id")
        return _Line(key, str(own) if own else self._id_of(place, text), where, _fault(data, key), place, counts)

    def _id_of(self, place: tuple[int, int, int], text: bytes) -> str:
        """Return an id for a line without one, which another round may bring word for word, even under one name."""
        written = os.fstat(self._files[place[0]].fileno()).st_mtime_ns
        return f"{_NO_ID}{hashlib.sha256(b'%d %b' % (written, text)).hexdigest()[:16]}"


def _fault(data: Mapping[str, Any], key: str) -> str:
    """Return why a line of output holds no answer, or an empty text."""
    response, error = data.get("response"), data.get("error")
    response = response if isinstance(response, dict) else {}
    status, body = response.get("status_code"), response.get("body")
    if status == 200 and not error:
        try:
            completion_of(orjson.dumps(body), key)
        except InferenceError as fault:
            return str(fault)
        return ""
    words = message_of(orjson.dumps(error or body or ""))
    return f"the service answers {status or 'nothing'}" + (f" ({quote(words)})" if words else "")


async def _answered(run: Run, keys: Set[str], answers: "_Outputs") -> set[str]:
    """Return which of the requests have an answer, in the journal or in the files."""
    if not keys:
        return set()
    with run.lock():
        async with Journal(run.journal_path) as journal:
            return {key for key in keys if key and (answers.holds(key) or journal.get(key) is not None)}


async def _waiting(run: Run, answers: "_Outputs", state: "_State", counts: "_Counts") -> AsyncIterator[Any]:
    """Count the good lines that no unit asked for, and yield those that answer a request of this run."""
    if not answers.left:
        return
    with run.lock():
        async with Journal(run.journal_path) as journal:
            for line, row in answers.unused():
                if journal.get(line.key) is not None:
                    counts.repeated += line.counts
                elif state.was_exported(line.key):
                    counts.waiting += line.counts
                    yield row
                else:
                    counts.stranger(line)


@contextmanager
def _locked(run: Run) -> Iterator[Path]:
    """Give the batch's folder while no other process exports or collects."""
    folder = run.path / "batch"
    folder.mkdir(exist_ok=True)
    with Run(folder).lock():
        yield folder


def _keys(path: Path) -> Iterator[str]:
    """Yield the keys of a request file."""
    with path.open("rb") as file:
        for line in file:
            if line.startswith(_HEAD):
                yield line[len(_HEAD) : line.index(b'"', len(_HEAD))].decode()


def _slot(key: str) -> bytes:
    return hashlib.blake2b(key.encode(), digest_size=16).digest()


def _copy(files: Sequence[Path], folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in files:
            shutil.copyfile(path, folder / path.name)
    except OSError as error:
        raise RunError(
            f"the copy cannot be written ({error.strerror or error})",
            where=str(folder),
            fix=f"the files are in {files[0].parent}",
        ) from error
