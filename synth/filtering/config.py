"""The settings of the filter, and the rules that come of them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from synth.filters.base import Rule
from synth.filters.lengths import TokenLimits
from synth.filters.rules_file import RulesFile, load_rules
from synth.filters.selection import Bounds

# Raise it when a scorer changes its mind about the same text, so that no old decision passes for current.
FILTER_VERSION = 3

PRESETS: Mapping[str, tuple[str, ...]] = {
    "general": (
        "form >= 1",
        "language >= 1",
        "evidence >= 1",
        "groundedness >= 0.6",
        "facts >= 1",
        "coverage >= 1",
        "negation >= 1",
        "polarity >= 1",
        "relevance >= 0.3",
        "answer_type >= 1",
    ),
    "extractive": (
        "form >= 1",
        "language >= 1",
        "evidence >= 1",
        "groundedness >= 1",
        "facts >= 1",
        "negation >= 1",
        "relevance >= 0.9",
        "answer_type >= 1",
        "question_fit >= 1",
        "span_use >= 1",
    ),
    "none": (),
}


class FilterConfig(BaseModel):
    """What the filter keeps."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    preset: Literal["general", "extractive", "none"] = "general"
    """The rules to start from: "general" for a teacher that writes in its own words, "extractive" for a very small
    one, whose pairs are right mostly where they copy, "none" for your own rules alone."""

    rules: str | None = None
    """A file of rules from `synth calibrate`; its rules take the place of the preset's."""

    rule: tuple[str, ...] = ()
    """A rule such as "groundedness >= 0.8"; it takes the place of the rule on that score, if there is one.
    A record without the score passes."""

    scorer: tuple[str, ...] = ()
    """A scorer of yours, as module:name or by the name of an entry point; a rule may name its score."""

    scores: Literal["ruled", "all"] = "ruled"
    """Which of the model-free scores are given: those that are "ruled" on, or "all", so that records.jsonl shows what
    other rules would do, which takes about twice the time."""

    min_question_words: int = Field(default=3, ge=0)
    """The least number of words of a question."""

    max_question_words: int = Field(default=60, ge=1)
    """The greatest number of words of a question."""

    max_answer_words: int = Field(default=300, ge=1)
    """The greatest number of words of an answer."""

    tokenizer: str | None = None
    """The model (a hub id or a folder) whose tokens the bounds below count, the student's best of all."""

    min_question_tokens: int | None = Field(default=None, ge=0)
    """The least number of tokens of a question."""

    max_question_tokens: int | None = Field(default=None, ge=1)
    """The greatest number of tokens of a question."""

    min_answer_tokens: int | None = Field(default=None, ge=0)
    """The least number of tokens of an answer."""

    max_answer_tokens: int | None = Field(default=None, ge=1)
    """The greatest number of tokens of an answer."""

    max_total_tokens: int | None = Field(default=None, ge=1)
    """The greatest number of tokens of all turns together; the student's context length, for one."""

    near_duplicate: float = Field(default=0.7, gt=0)
    """The Jaccard similarity (words and word pairs) from which two pairs are near duplicates; a number above 1 lets
    all near duplicates be."""

    duplicates_on: Literal["both", "question", "answer"] = "both"
    """What two records must share to be duplicates: question and answer, or one of them alone."""

    embedder: str | None = None
    """The model for embeddings: "wordllama" (small, comes with the extra `semantic`), or the folder or hub id of a
    model2vec or sentence-transformers model. With it reworded held-out questions are found too; semantic duplicates
    and "coverage" need it."""

    semantic_duplicate: float | None = Field(default=None, gt=0, le=1)
    """The cosine similarity of embeddings from which two pairs are duplicates; none compares no embeddings."""

    reworded: Literal["reject", "report"] = "reject"
    """What becomes of a pair that asks a held-out question in other words, as embeddings tell it: it goes, so that
    nothing in the dataset says what the held-out set asks; or it is only counted, since a pair about the same fact is
    also what teaches the student that fact."""

    contaminated_passages: Literal["report", "reject"] = "report"
    """What becomes of a record whose passage holds a held-out question, though its own turns do not show it."""

    pii: Literal["off", "reject", "mask"] = "off"
    """Personal data and secrets (e-mail addresses, keys, card numbers): let be, a reason to reject, or masked in the
    dataset; records.jsonl keeps them."""

    max_per_passage: int | None = Field(default=None, ge=1)
    """Keep at most this many records of one passage, the best scored; none sets no bound."""

    max_per_document: int | None = Field(default=None, ge=1)
    """Keep at most this many records of one document, the best scored; none sets no bound."""

    max_per_kind: tuple[str, ...] = ()
    """A bound for one kind, such as "qa=500", or "unanswerable=0.1" for a tenth of what is kept."""

    num_records: int | None = Field(default=None, ge=1)
    """Keep at most this many records in all; none keeps all that are accepted."""

    select: Literal["spread", "coverage"] = "spread"
    """Which records stay where there are too many: the best "spread" over passages and documents, or those that
    cover the most of what was asked by their embeddings, weighed by quality."""

    validation_share: float = Field(default=0.2, ge=0, le=0.9)
    """The share of the kept records, by whole documents, that goes to dataset/validation.jsonl."""

    seed: int = 0
    """Decides which documents validate and, where records are spread, which document is first."""

    judge: str | None = None
    """The model (URL, hub id or folder) that answers where a rule names a score of a model: `round_trip`,
    `round_trip_em`, `judge`, `judge_agreement`, `closed_book`."""

    votes: int = Field(default=1, ge=1)
    """How often the judge marks each record, in another order each time; the mean counts."""

    rubric: str | None = None
    """A rubric of yours for the judge: a prompt file like prompts/judge.md."""

    student: str | None = None
    """The model (a hub id or a folder) whose view is asked where a rule names `answer_loss` or `ifd`."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        self.bounds()
        if self.token_limits and self.tokenizer is None:
            raise ValueError("a bound in tokens needs `tokenizer`, the model whose tokens are counted")
        if self.embedder is None:
            if self.semantic_duplicate is not None:
                raise ValueError("`semantic_duplicate` needs `embedder`")
            if self.select == "coverage":
                raise ValueError('select = "coverage" needs `embedder`')
        return self

    @property
    def has_bounds(self) -> bool:
        """Whether anything may be too many."""
        return self.bounds() != Bounds()

    def bounds(self) -> Bounds:
        """Return how many records may stay."""
        return Bounds(
            num_records=self.num_records,
            max_per_passage=self.max_per_passage,
            max_per_document=self.max_per_document,
            max_per_kind=dict(map(_kind_bound, self.max_per_kind)) or None,
        )

    @property
    def token_limits(self) -> TokenLimits | None:
        """The bounds in tokens, or None where there is none."""
        limits = TokenLimits(
            min_question_tokens=self.min_question_tokens,
            max_question_tokens=self.max_question_tokens,
            min_answer_tokens=self.min_answer_tokens,
            max_answer_tokens=self.max_answer_tokens,
            max_total_tokens=self.max_total_tokens,
        )
        return limits if limits != TokenLimits() else None

    def rules_file(self) -> RulesFile | None:
        """Return what stands in `rules`, or None.

        Raises:
            ConfigError: the file is not there or no rules file.
        """
        return None if self.rules is None else load_rules(Path(self.rules))

    def rules_in_force(self, file: RulesFile | None = None) -> tuple[Rule, ...]:
        """Return the rules: the file's or else the preset's, those on scores that `rule` names replaced, and the rest.

        Args:
            file: what `rules_file` returned, where it is read already.

        Raises:
            ConfigError: a text is no rule, or the rules file cannot be read.
        """
        file = file or self.rules_file()
        base = file.rules if file is not None else tuple(map(Rule.parse, PRESETS[self.preset]))
        own = {"length": self.token_limits is not None, "pii": self.pii == "reject"}
        base += tuple(Rule(name, ">=", 1) for name, wanted in own.items() if wanted)
        given = tuple(Rule.parse(text) for text in self.rule)
        by_score: dict[str, list[Rule]] = {}
        for rule in base:
            by_score.setdefault(rule.score, []).append(rule)
        by_score.update({rule.score: [other for other in given if other.score == rule.score] for rule in given})
        return tuple(rule for same in by_score.values() for rule in same)


def _kind_bound(text: str) -> tuple[str, int | float]:
    """Read "qa=500" or "qa=0.5"."""
    kind, equals, number = text.partition("=")
    try:
        bound = int(number) if number.strip().isdecimal() else float(number)
    except ValueError:
        bound = 0
    if not (kind.strip() and equals) or bound <= 0 or (isinstance(bound, float) and not bound <= 1):
        raise ValueError(f"{text!r} is no bound of a kind; write qa=500 (records), or qa=0.5 (a share up to 1)")
    return kind.strip(), bound
