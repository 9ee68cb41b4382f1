"""What a judge marks: a rubric is a text file with one criterion a list item.

    - supported (1-5, must): All that the answer says stands in the passage.
    - polite (yes/no): The answer is one that we would give a customer.

Marks are 1 to 5, unless it says yes/no. "must": a pair is worth no more than its mark here, however good the rest.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from synth.core.errors import ConfigError
from synth.core.resources import resource

REASON = "reason"
_ITEM = re.compile(
    r"[-*+]\s+(?:\*\*|__|`)?(?P<name>[^:(*_`]*\w[^:(*`]*?)(?:\*\*|__|`)?\s*(?:\((?P<how>[^)]*)\))?\s*:\s*(?P<text>.*)"
)


@dataclass(frozen=True, slots=True)
class Criterion:
    """One thing to mark. `name` is its key in the reply; `must` makes it the bound of the whole mark."""

    name: str
    text: str
    scale: Literal["1-5", "yes/no"] = "1-5"
    must: bool = False

    @property
    def schema(self) -> dict[str, Any]:
        """The JSON Schema of its mark."""
        return {"type": "boolean"} if self.scale == "yes/no" else {"type": "integer", "minimum": 1, "maximum": 5}

    def value(self, mark: int | bool) -> float:
        """Return a mark as a share from 0 to 1."""
        return float(mark) if isinstance(mark, bool) else (mark - 1) / 4


@dataclass(frozen=True, slots=True)
class Rubric:
    """The criteria, in the order of the file."""

    criteria: tuple[Criterion, ...]

    @classmethod
    def read(cls, path: Path | None = None) -> Self:
        """Read a rubric; prompts/judge-rubric.md unless told otherwise.

        Raises:
            ConfigError: the file cannot be read, holds no criterion, or one is wrong; the error names the line.
        """
        source = resource("prompts", "judge-rubric.md") if path is None else path
        try:
            text = source.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"the rubric cannot be read ({error})", where=str(source)) from error
        return cls.parse(text, str(source))

    @classmethod
    def parse(cls, text: str, where: str = "rubric") -> Self:
        """Read the list items of a text; indented lines below an item belong to it, all else is for people.

        Raises:
            ConfigError: no item is a criterion, or one is wrong.
        """
        found: dict[str, Criterion] = {}
        last: str | None = None
        for number, line in enumerate(text.splitlines(), 1):
            item = _ITEM.fullmatch(line.rstrip())
            if item:
                criterion = _criterion(item, f"{where}:{number}")
                if criterion.name in found:
                    raise ConfigError(f"{criterion.name!r} stands there twice", where=f"{where}:{number}")
                found[criterion.name], last = criterion, criterion.name
            elif last is not None and line[:1].isspace() and line.strip():
                above = found[last]
                found[last] = Criterion(above.name, f"{above.text} {line.strip()}".strip(), above.scale, above.must)
            else:
                last = None
        for criterion in found.values():
            if not criterion.text:
                raise ConfigError(f"{criterion.name!r} does not say what is marked", where=where)
        if not found:
            raise ConfigError(
                "the rubric has no criterion", where=where, fix="write list items such as `- supported (1-5): …`"
            )
        return cls(tuple(found.values()))

    def rotated(self, by: int) -> tuple[Criterion, ...]:
        """Return the criteria in an order that begins with another one for each of `by` = 0, 1, 2 …, and then anew."""
        start = by % len(self.criteria)
        return self.criteria[start:] + self.criteria[:start]

    def worth(self, marks: Mapping[str, float]) -> float:
        """Return what marks from 0 to 1 add up to: their mean, but no more than the least of those that must be."""
        mean = sum(marks[c.name] for c in self.criteria) / len(self.criteria)
        return min([mean, *(marks[c.name] for c in self.criteria if c.must)])


def _criterion(item: re.Match[str], where: str) -> Criterion:
    name = re.sub(r"\W+", "_", item["name"].strip().lower()).strip("_")
    if name == REASON:
        raise ConfigError(
            f"a criterion cannot be called {REASON!r}", where=where, fix="the judge's reason has that name"
        )
    scale: Literal["1-5", "yes/no"] = "1-5"
    must = False
    for word in filter(None, (part.strip().lower() for part in (item["how"] or "").split(","))):
        if word == "yes/no":
            scale = "yes/no"
        elif word == "must":
            must = True
        elif word.replace("–", "-") != "1-5":
            raise ConfigError(
                f"{word!r} is no scale", where=where, fix="write (1-5) or (yes/no), and must if it has to be"
            )
    return Criterion(name, item["text"].strip(), scale, must)
