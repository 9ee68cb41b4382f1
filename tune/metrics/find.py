"""Finding metrics: built in, by the name of an entry point (`tune.metrics`), or a user's own as `module:name`.

A user's metric is a function from an answer and its item to a number from 0 to 1, or None where it cannot say:

    def ends_with_a_stop(answer: str, item: HeldoutItem) -> float:
        return float(answer.rstrip().endswith("."))

An object, or a class that is called without arguments, with `name` and `score` as in tune/metrics/base.py works too.
"""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from synth.core.errors import ConfigError
from synth.core.heldout import HeldoutItem, Task
from synth.core.user_code import code_digest, load_named
from tune.metrics.base import Metric, Reply
from tune.metrics.embedding import DEFAULT, Embedding, installed
from tune.metrics.labels import Correct
from tune.metrics.rouge import RougeL
from tune.metrics.squad import F1, ExactMatch

if TYPE_CHECKING:
    from synth.core.squad import Version

GROUP = "tune.metrics"
BUILT_IN = ("f1", "em", "correct", "rouge_l", "embedding")
# The first one decides, unless the user says otherwise.
_DEFAULTS: Mapping[Task, tuple[str, ...]] = {"qa": ("f1", "em"), "labels": ("correct",), "free": ("rouge_l",)}


def find_metrics(
    task: Task,
    names: Sequence[str] = (),
    *,
    labels: Sequence[str] = (),
    unanswerable: bool = False,
    embedder: str = DEFAULT,
) -> list[Metric]:
    """Return the metrics of a set: those of its task, then those that are named, each once.

    Args:
        task: what the set asks for. "qa" has f1 and em, "labels" has correct, "free" has rouge_l and, where its
            extra is installed, embedding.
        names: further ones: `BUILT_IN`, the name of an entry point, or `module:name`.
        labels: of a label set.
        unanswerable: whether the set has unanswerable items: then em and f1 are those of SQuAD v2.0, else of v1.1.
        embedder: the model of the metric embedding.

    Raises:
        ConfigError: nothing has such a name, it cannot be imported or is no metric, or two share a name.
    """
    version: Version = "2.0" if unanswerable else "1.1"
    built_in: dict[str, Metric] = {
        "f1": F1(version),
        "em": ExactMatch(version),
        "correct": Correct(tuple(labels)),
        "rouge_l": RougeL(),
        "embedding": Embedding(embedder),
    }
    wanted = [*_DEFAULTS[task], *(["embedding"] if task == "free" and installed() else []), *names]
    found: list[Metric] = []
    for spec in dict.fromkeys(wanted):
        if spec == "correct" and task != "labels":
            raise ConfigError("is for sets of labels", where="metric correct", fix="take em for questions")
        metric = built_in[spec] if spec in built_in else _own(spec)
        if any(metric.name == other.name for other in found):
            raise ConfigError(f"two metrics are called {metric.name!r}", where=f"metric {spec}", fix="rename one")
        found.append(metric)
    return found


def metric_name(spec: str) -> str:
    """Return what the values of a metric are called.

    Args:
        spec: one of `BUILT_IN`, the name of an entry point, or `module:name`.

    Raises:
        ConfigError: as `find_metrics`.
    """
    return spec if spec in BUILT_IN else _own(spec).name


def metric_digests(names: Sequence[str]) -> dict[str, str]:
    """Return for each of a user's metrics a SHA-256 of the file that its code is in, as far as it is in a file.

    Raises:
        ConfigError: as `find_metrics`.
    """
    found = {}
    for spec in dict.fromkeys(names):
        if spec in BUILT_IN:
            continue
        thing = _loaded(spec)
        if (digest := code_digest(getattr(thing, "__module__", None) or type(thing).__module__)) is not None:
            found[spec] = digest
    return found


@dataclass(frozen=True, slots=True)
class _OfFunction:
    """A user's function as a metric."""

    name: str
    words: str
    function: Callable[[str, HeldoutItem], Any]

    def score(self, replies: Sequence[Reply]) -> list[float | None]:
        """Return what the function gives for each answer.

        Raises:
            ConfigError: it fails, or gives something else than a number from 0 to 1.
        """
        return [_number(self._called(reply), self.name, reply.item) for reply in replies]

    def _called(self, reply: Reply) -> object:
        try:
            return self.function(reply.text, reply.item)
        except Exception as error:  # a user's function may fail in any way
            raise ConfigError(
                f"failed at item {reply.item.id!r} ({type(error).__name__}: {error})",
                where=f"metric {self.name}",
                fix="mend it, or return None where it cannot measure",
            ) from error


@dataclass(frozen=True, slots=True)
class _OfObject:
    """A user's object as a metric: what it gives is checked."""

    name: str
    words: str
    inner: Any

    def score(self, replies: Sequence[Reply]) -> list[float | None]:
        """Return what the object gives.

        Raises:
            ConfigError: it fails, or does not give one number from 0 to 1 for each answer.
        """
        try:
            values = list(self.inner.score(replies))
        except Exception as error:  # a user's object may fail in any way
            raise ConfigError(
                f"failed ({type(error).__name__}: {error})", where=f"metric {self.name}", fix="mend it"
            ) from error
        if len(values) != len(replies):
            raise ConfigError(
                f"gave {len(values)} numbers for {len(replies)} answers",
                where=f"metric {self.name}",
                fix="give one for each answer, None where it cannot be measured",
            )
        return [_number(value, self.name, reply.item) for value, reply in zip(values, replies, strict=True)]


def _number(value: object, metric: str, item: HeldoutItem) -> float | None:
    if value is None:
        return None
    try:
        number = float(value)  # type: ignore[arg-type]  # whatever a user's metric gives
    except (TypeError, ValueError) as error:
        raise _no_number(repr(value)[:80], metric, item) from error
    if math.isnan(number) or not 0 <= number <= 1:
        raise _no_number(repr(number), metric, item)
    return number


def _no_number(value: str, metric: str, item: HeldoutItem) -> ConfigError:
    return ConfigError(
        f"gave {value} for item {item.id!r}",
        where=f"metric {metric}",
        fix="give a number from 0 (worst) to 1 (best), or None where it cannot be measured",
    )


def _own(spec: str) -> Metric:
    where = f"metric {spec}"
    thing = _loaded(spec)
    if inspect.isclass(thing):
        try:
            thing = thing()
        except Exception as error:  # a user's class may fail in any way
            raise ConfigError(
                f"cannot be made without arguments ({type(error).__name__}: {error})", where=where
            ) from error
    if callable(getattr(thing, "score", None)) and isinstance(getattr(thing, "name", None), str):
        named: Any = thing
        return _OfObject(named.name, str(getattr(named, "words", named.name)), named)
    if callable(thing):
        name = str(getattr(thing, "__name__", spec.rpartition(":")[2]))
        return _OfFunction(name, name.replace("_", " "), thing)
    raise ConfigError(
        "is no metric",
        where=where,
        fix="it is a function of an answer and its item, or has `name` and `score(replies)`",
    )


def _loaded(spec: str) -> object:
    return load_named(
        spec,
        kind="metric",
        group=GROUP,
        known=BUILT_IN,
        fits=lambda value: callable(value) or hasattr(value, "score"),
    )
