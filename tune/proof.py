"""The proof that TRL trains on the rows that preflight looked at: each of them once, whole, with its own labels."""

from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from synth.core.errors import RecordError
from tune.findings import listed
from tune.rows import IGNORED, Rendered

if TYPE_CHECKING:
    import torch

_SEQUENCES_AT_ONCE = 64
_REPORT = "report this: TRL's preparation and this project's do not agree"

Collate = Callable[[list[dict[str, Any]]], Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Proof:
    """What was counted in TRL's own batches.

    `labelled` are the tokens that count in the loss. `sequences` are the rows or, packed, the sequences of several
    rows. `efficiency` of packing is the share of the room in them that is filled.
    """

    rows: int
    tokens: int
    labelled: int
    sequences: int
    longest: int
    efficiency: float | None = None


def prove(
    prepared: Sequence[Any],
    collate: Collate,
    rendered: Sequence[Rendered],
    *,
    packed: bool,
    length: int | None = None,
) -> Proof:
    """Collate every row as the trainer does, and compare what comes out with what preflight rendered.

    TRL masks the first token of each packed row, which no loss counts in an unpacked one either: the labels are
    shifted by one, and nothing comes before it.

    Args:
        prepared: the trainer's dataset after TRL's preparation.
        collate: the trainer's collator.
        rendered: the rows that it was built from; unpacked, in the same order.
        packed: whether sequences hold several rows.
        length: the length that rows were packed to, for `efficiency`. Default: the longest sequence.

    Raises:
        RecordError: a row is missing, cut, doubled, moved, or labelled otherwise. Nothing was trained.
    """
    lengths = _prove_packed(prepared, collate, rendered) if packed else _prove_unpacked(prepared, collate, rendered)
    tokens, longest = sum(lengths), max(lengths, default=0)
    room = len(lengths) * (length or longest)
    return Proof(
        rows=len(rendered),
        tokens=tokens,
        labelled=sum(row.labelled for row in rendered),
        sequences=len(lengths),
        longest=longest,
        efficiency=tokens / room if packed and room else None,
    )


def _prove_unpacked(prepared: Sequence[Any], collate: Collate, rendered: Sequence[Rendered]) -> list[int]:
    if len(prepared) != len(rendered):
        raise RecordError(
            f"TRL kept {len(prepared)} of {len(rendered)} rows", fix="report this: rows must never vanish"
        )
    for start, examples in _chunks(prepared):
        rows = rendered[start : start + len(examples)]
        batch = collate([{"input_ids": e["input_ids"], "labels": e["labels"]} for e in examples])
        for i, row in enumerate(rows):
            where = f"row {row.row.id}"
            if examples[i].get("id", row.row.id) != row.row.id:
                raise RecordError(f"{where}: TRL put another row in its place", fix=_REPORT)
            real = int(batch["attention_mask"][i].sum())
            if real != row.tokens:
                raise RecordError(
                    f"{where}: TRL would train on {real} of its {row.tokens} tokens",
                    fix="report this: no row may be cut unseen",
                )
            _compare(where, row, batch["input_ids"][i, :real], batch["labels"][i, :real], first_masked=False)
            if bool((batch["labels"][i, real:] != IGNORED).any()):
                raise RecordError(f"{where}: its padding is labelled", fix=_REPORT)
    return [row.tokens for row in rendered]


def _compare(where: str, row: Rendered, ids: "torch.Tensor", labels: "torch.Tensor", *, first_masked: bool) -> None:
    if ids.tolist() != list(row.ids):
        raise RecordError(f"{where}: TRL would train on other tokens", fix=_REPORT)
    wanted = [IGNORED if first_masked else row.labels[0], *row.labels[1:]]
    given = labels.tolist()
    if given == wanted:
        return
    if any(label != IGNORED and want == IGNORED for label, want in zip(given, wanted, strict=True)):
        raise RecordError(
            f"{where}: tokens of the prompt are labelled, the student would learn to write questions", fix=_REPORT
        )
    raise RecordError(f"{where}: a part of the completion is masked", fix=_REPORT)


def _prove_packed(prepared: Sequence[Any], collate: Collate, rendered: Sequence[Rendered]) -> list[int]:
    """Find every row in the packed sequences; they come in an order of TRL's own and without their ids."""
    waiting: dict[bytes, list[Rendered]] = {}
    for row in rendered:
        waiting.setdefault(_key(row.ids, (IGNORED, *row.labels[1:])), []).append(row)
    lengths: list[int] = []
    strangers = 0
    for _, examples in _chunks(prepared):
        batch = collate(
            [{"input_ids": e["input_ids"], "labels": e["labels"], "seq_lengths": e["seq_lengths"]} for e in examples]
        )
        ids, labels = batch["input_ids"].flatten().tolist(), batch["labels"].flatten().tolist()
        several = [length for example in examples for length in example["seq_lengths"]]
        positions = [position for length in several for position in range(length)]
        if batch["position_ids"].flatten().tolist()[: len(positions)] != positions:
            raise RecordError("rows that share a packed sequence would read each other", fix=_REPORT)
        if any(label != IGNORED for label in labels[len(positions) :]):
            raise RecordError("the padding of a packed sequence is labelled", fix=_REPORT)
        start = 0
        for length in several:
            found = waiting.get(_key(ids[start : start + length], labels[start : start + length]))
            if found:
                found.pop()
            else:
                strangers += 1
            start += length
        lengths += [sum(example["seq_lengths"]) for example in examples]
    missing = [row.row.id for rows in waiting.values() for row in rows]
    if missing or strangers:
        also = f", and {strangers} that no row is like are there" if strangers else ""
        raise RecordError(
            f"packing lost, cut or relabelled {listed(missing)}{also}"
            if missing
            else f"packing added {strangers} rows",
            fix="report this: packing must keep every row whole; --packing-length must hold the longest one",
        )
    return lengths


def _key(ids: Sequence[int], labels: Sequence[int]) -> bytes:
    return blake2b(array("i", [*ids, *labels]).tobytes(), digest_size=16).digest()


def _chunks(prepared: Sequence[Any]) -> Iterator[tuple[int, list[Mapping[str, Any]]]]:
    for start in range(0, len(prepared), _SEQUENCES_AT_ONCE):
        yield start, [prepared[i] for i in range(start, min(start + _SEQUENCES_AT_ONCE, len(prepared)))]
