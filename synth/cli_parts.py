"""What the commands of `synth` share: flags, the tables of a config file, and results in words."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.table import Table

from synth.core.config import build, read_config
from synth.core.console import notice, setting, stdout
from synth.core.resources import resource
from synth.core.runs import Run
from synth.filtering.config import FilterConfig
from synth.filtering.ledger import FilterSummary
from synth.generate import GenerateConfig, GenerateSummary
from synth.job import joined_options

Heldouts = Annotated[
    list[Path] | None,
    typer.Option(
        "--heldout",
        metavar="FILE",
        help="Human questions that must not leak into the dataset. May be repeated.",
        show_default=False,
    ),
]
Preset = Annotated[str | None, setting(FilterConfig, "preset")]
RulesFlag = Annotated[str | None, setting(FilterConfig, "rules")]
Rule = Annotated[list[str] | None, setting(FilterConfig, "rule")]
# Flags of the generate stage that several commands have.
Generators = Annotated[list[str] | None, setting(GenerateConfig, "generator", "--generator")]
PassageChars = Annotated[int | None, setting(GenerateConfig, "passage_chars")]
PassageTokens = Annotated[int | None, setting(GenerateConfig, "passage_tokens")]
MaxPassages = Annotated[int | None, setting(GenerateConfig, "max_passages")]
ShardOf = Annotated[str | None, setting(GenerateConfig, "shard")]
Temperature = Annotated[float | None, setting(GenerateConfig, "temperature")]
TopP = Annotated[float | None, setting(GenerateConfig, "top_p")]
MaxTokens = Annotated[int | None, setting(GenerateConfig, "max_tokens")]
Seed = Annotated[int | None, setting(GenerateConfig, "seed")]
GeneratorOption = Annotated[
    list[str] | None,
    typer.Option("--option", metavar="NAME.KEY=VALUE", help="A generator's own setting. May be repeated."),
]
TokenizerOf = Annotated[
    str | None,
    typer.Option(
        "--tokenizer", metavar="MODEL", help="Whose tokens --passage-tokens counts, where the teacher's are not known."
    ),
]
ValidationShare = Annotated[float | None, setting(FilterConfig, "validation_share")]


def default_name(source: str) -> str:
    """Return the name of the run over `source`: the folder's, or the hub dataset's."""
    if source.startswith("hub:"):
        return source.removeprefix("hub:").replace("/", "-")
    path = Path(source)
    # Two folders of one name are two runs, as far as the words that the user wrote tell them apart.
    inside = not path.is_absolute() and ".." not in path.parts and path.parts
    return "-".join(path.parts) if inside else path.resolve().name


def tables_of(config: Path | None, *, bundled: bool = False) -> Mapping[str, Mapping[str, Any]]:
    """Return the tables of the config file; the bundled models bring their own settings, which the file overrides."""
    own = read_config(resource("demo", "demo.toml")) if bundled else {}
    given = read_config(config) if config else {}
    tables: dict[str, dict[str, Any]] = {
        stage: {**own.get(stage, {}), **given.get(stage, {})} for stage in {*own, *given}
    }
    options = [source.get("generate", {}).get("options", {}) for source in (own, given)]
    if any(options):
        tables["generate"]["options"] = joined_options(*options)
    return tables


def filter_config(given: Mapping[str, Mapping[str, Any]], flags: Mapping[str, Any]) -> FilterConfig:
    """Build the filter's settings from the tables of a config file and the flags, which win."""
    said = {name: tuple(value) if isinstance(value, list) else value for name, value in flags.items()}
    return build(FilterConfig, given.get("filter", {}), {k: v for k, v in said.items() if v != ()}, where="filter")


def show_generate(run: Run, summary: GenerateSummary) -> None:
    """Print what the generate stage did; every count is accounted for."""
    stdout.print(
        f"Run {run.path}" + (" (was finished: nothing was asked again)" if summary.current else ""),
        markup=False,
    )
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(justify="right")
    table.add_column()
    found = summary.documents + summary.documents_quarantined
    asked = summary.calls + summary.calls_replayed + summary.calls_failed + summary.calls_declined
    declined = f", {summary.calls_declined} refused by the endpoint" * bool(summary.calls_declined)
    twins = f", {summary.passages_duplicate} of them asked about once with their twins" * bool(
        summary.passages_duplicate
    )
    table.add_row(str(found), f"documents: {summary.documents} read, {summary.documents_quarantined} in quarantine")
    table.add_row(str(summary.passages), f"passages{twins}")
    table.add_row(
        str(asked),
        f"calls: {summary.calls} answered, {summary.calls_replayed} from the journal, "
        f"{summary.calls_failed} without answer{declined}",
    )
    table.add_row(
        str(summary.calls + summary.calls_replayed),
        f"answers: {summary.calls_used} in records, {summary.calls_quarantined} in quarantine, "
        f"{summary.calls_between} on the way",
    )
    table.add_row(
        str(summary.completion_tokens),
        f"tokens written, {summary.prompt_tokens} read, {summary.seconds:.0f} s"
        + (f", cost {summary.cost:.2f}" if summary.cost is not None else ""),
    )
    table.add_row(str(summary.quarantined), "lines in quarantine.jsonl, each with its reason")
    table.add_row(str(summary.records), "records")
    stdout.print(table)
    if summary.capped:
        notice(f"{summary.capped} was reached: {summary.units_left} units of work were left.")
    for place in summary.damaged:
        notice(f"journal/{place} could not be read; its call was made again.")


def show_filter(run: Run, summary: FilterSummary) -> None:
    """Print the funnel of the filter, which adds up from all records to those kept, and what filter.json adds."""
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(justify="right")
    table.add_column()
    for reason, count in summary.funnel:
        table.add_row(f"-{count}", reason)
    table.add_row(f"{summary.kept}", f"kept: {summary.train} to train on, {summary.validation} for validation")
    stdout.print(table)
    for file in (read_report(run).get("contamination") or {}).get("files", ()):
        how = ", ".join(f"{count} {name}" for name, count in file["by_how"].items())
        found = f"; {file['leaked']} are asked in {file['records']} records ({how})" if file["leaked"] else ""
        in_passages = f"; {file['in_passages']} stand in passages" if file["in_passages"] else ""
        stdout.print(
            f"{file['file']}: {file['clean']} of {file['items']} held-out questions clean{found}{in_passages}",
            markup=False,
        )


def read_report(run: Run) -> Mapping[str, Any]:
    """Return filter.json, or nothing where it is not there."""
    try:
        found: Mapping[str, Any] = orjson.loads(run.filter_path.read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return {}
    return found
