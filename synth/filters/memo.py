"""Memory of what was made of a text, bounded by how much text it remembers."""

from collections.abc import Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")

# Characters of all keys, with some for each entry: several portions of records, and little where texts are huge.
_ROOM = 1 << 22
_ENTRY = 64
_ALL: "list[Memo[Any]]" = []


class Memo(dict[str, T], Generic[T]):
    """A table that makes a missing value with `make`, and forgets everything when its keys are too long together.

    Looking up what is there runs no Python code. `functools.lru_cache` is as fast, but counts entries: some
    thousand hostile texts of a megabyte each would stay in memory for good.
    """

    __slots__ = ("held", "make", "room")

    def __init__(self, make: Callable[[str], T], room: int = _ROOM) -> None:
        super().__init__()
        self.make, self.room, self.held = make, room, 0
        _ALL.append(self)

    def __missing__(self, key: str) -> T:
        value = self.make(key)
        if self.held > self.room:
            self.trim()
        self.held += len(key) + _ENTRY
        self[key] = value
        return value

    def trim(self) -> None:
        """Forget everything if the table holds more than it has room for."""
        if self.held > self.room:
            self.clear()
            self.held = 0


def trim_all() -> None:
    """Let every table forget what it has no room for, such as the one huge text that it read last."""
    for memo in _ALL:
        memo.trim()


def tables() -> "tuple[Memo[Any], ...]":
    """Return all tables of the process."""
    return tuple(_ALL)
