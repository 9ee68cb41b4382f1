"""The counts of a generate stage, so that all of them add up."""

from dataclasses import asdict, dataclass

from synth.core.calls import EndpointStats
from synth.core.records import Record
from synth.generation.passages import Reading
from synth.generation.units import UnitResult


@dataclass(slots=True)
class Tally:
    """Counts so far.

    - documents found = `documents` (read) + `documents_quarantined`
    - passages = `passages_duplicate` + those asked about or left out by shard, `max_passages` or a cap
    - calls asked = `calls` + `calls_replayed` + `calls_failed` (no answer came) + `calls_declined` (refused for good)
    - `calls` + `calls_replayed` = `calls_used` (a record names them) + `calls_quarantined` + `calls_between`
      (a reply that was asked for again, a step on the way, or one whose content the generator left out)
    - units begun = `units`; `units_left` were left by a cap, begun or not
    - lines of quarantine.jsonl = `quarantined`
    """

    documents: int = 0
    documents_quarantined: int = 0
    passages: int = 0
    passages_duplicate: int = 0
    units: int = 0
    units_left: int = 0
    records: int = 0
    quarantined: int = 0
    calls: int = 0
    calls_replayed: int = 0
    calls_failed: int = 0
    calls_declined: int = 0
    calls_used: int = 0
    calls_quarantined: int = 0
    calls_between: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def read(self, reading: Reading) -> None:
        """Count the documents."""
        self.documents, self.documents_quarantined = reading.documents, len(reading.refused)
        self.passages, self.passages_duplicate = reading.passages, reading.duplicates
        self.quarantined += len(reading.refused)

    def add(self, result: UnitResult) -> None:
        """Count a unit."""
        self.units += 1
        self.units_left += result.left
        self.records += len(result.records)
        self.quarantined += len(result.quarantine)
        self.calls += result.calls - result.replayed
        self.calls_replayed += result.replayed
        self.calls_failed += result.failed
        self.calls_declined += result.declined
        self.calls_used += result.used
        self.calls_quarantined += result.refused
        self.calls_between += result.calls - result.used - result.refused
        self.prompt_tokens += result.prompt_tokens
        self.completion_tokens += result.completion_tokens

    def counts(self) -> dict[str, int]:
        """Return the counts of run.json, tokens left out."""
        return {name: count for name, count in asdict(self).items() if not name.endswith("_tokens")}

    def usage(self) -> dict[str, int]:
        """Return the tokens of run.json."""
        return {"prompt_tokens": self.prompt_tokens, "completion_tokens": self.completion_tokens}


@dataclass(frozen=True, slots=True)
class Progress:
    """Where the stage is: `done` of `total` units (or of the records wanted), the counts, and what just came.

    `accepted` is known where a number of records is wanted. `cost` is known where the teacher has a price.
    """

    done: int
    total: int
    tally: Tally
    new: tuple[Record, ...] = ()
    accepted: int | None = None
    in_flight: int = 0
    cost: float | None = None
    endpoint: EndpointStats = EndpointStats()
