"""Human files for tests: made-up towns and their ferries, in the three formats, with no text of any data set."""

import json
from pathlib import Path
from random import Random
from typing import Any

_TOWNS = ("Olmerby", "Tarnwick", "Quellbach", "Isenford", "Marrowgate", "Pellham", "Ostrava Cove", "Lindisholm")
_PEOPLE = ("Ida Brandt", "Tomas Renn", "Maud Okoye", "Petr Hale", "Lena Voss", "Amir Dunne", "Greta Lund", "Paul Szabo")
_TRADES = ("herring", "timber", "wool", "barley", "slate", "cider", "amber", "glass")
_COLOURS = ("green", "yellow", "crimson", "grey", "violet", "white", "orange", "brown")


def articles(documents: int = 12, paragraphs: int = 2, seed: int = 0) -> list[dict[str, Any]]:
    """Return SQuAD articles of six questions a paragraph; each answer stands in its paragraph."""
    rng = Random(seed)
    return [
        {
            "title": f"town-{document}",
            "paragraphs": [_paragraph(rng, f"{document}-{number}") for number in range(paragraphs)],
        }
        for document in range(documents)
    ]


def _paragraph(rng: Random, key: str) -> dict[str, Any]:
    town, person, other = rng.choice(_TOWNS), *rng.sample(_PEOPLE, 2)
    year, crew, minutes = rng.randint(1700, 1950), rng.randint(12, 95), rng.randint(15, 90)
    trade, colour = rng.choice(_TRADES), rng.choice(_COLOURS)
    context = (
        f"The harbour of {town} was built in {year} by the engineer {person}, who had studied abroad. "
        f"Its merchants grew rich on {trade} from the northern valleys. "
        f"Today a ferry with a {colour} funnel and a crew of {crew} sailors crosses the strait in {minutes} minutes. "
        f"The lighthouse keeper {other} does not allow visitors in the tower after sunset."
    )
    asked = [
        (f"When was the harbour of {town} built?", str(year)),
        ("Which engineer built the harbour?", person),
        ("What did the merchants grow rich on?", f"{trade} from the northern valleys"),
        ("How many sailors are in the crew of the ferry?", str(crew)),
        ("How long does the ferry take to cross the strait?", f"{minutes} minutes"),
        ("Who keeps the lighthouse and its tower?", other),
    ]
    return {
        "context": context,
        "qas": [
            {"id": f"{key}-{i}", "question": q, "answers": [{"text": a, "answer_start": context.index(a)}]}
            for i, (q, a) in enumerate(asked)
        ],
    }


def squad_file(path: Path, documents: int = 12, *, impossible: bool = False) -> Path:
    """Write a SQuAD file, version 2.0 with a question that cannot be answered where `impossible`."""
    data = articles(documents)
    if impossible:
        first = data[0]["paragraphs"][0]
        plausible = first["qas"][0]["answers"]
        first["qas"].append(
            {
                "id": "none",
                "question": "When was the harbour closed?",
                "is_impossible": True,
                "answers": [],
                "plausible_answers": plausible,
            }
        )
    path.write_text(json.dumps({"version": "v2.0", "data": data}))
    return path


def jsonl_file(path: Path, documents: int = 12) -> Path:
    """Write the same questions as JSONL."""
    lines = [
        {
            "id": qa["id"],
            "question": qa["question"],
            "answers": [qa["answers"][0]["text"]],
            "document_id": article["title"],
            "context": paragraph["context"],
        }
        for article in articles(documents)
        for paragraph in article["paragraphs"]
        for qa in paragraph["qas"]
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def csv_file(path: Path, documents: int = 12) -> Path:
    """Write the same questions as CSV."""
    lines = [json.loads(line) for line in jsonl_file(path.with_suffix(".tmp"), documents).read_text().splitlines()]
    rows = ["id,question,answer,document_id,context"]
    rows += [
        ",".join(f'"{value}"' for value in (r["id"], r["question"], r["answers"][0], r["document_id"], r["context"]))
        for r in lines
    ]
    path.write_text("\n".join(rows) + "\n")
    return path
