"""What is needed to judge one record alone: the rules, the scorers and the held-out questions."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

from synth.core.errors import ConfigError
from synth.core.heldout import HeldoutSet
from synth.core.records import Record
from synth.core.tokens import load_tokenizer
from synth.filtering.config import FilterConfig
from synth.filtering.late import VIEW_SCORES, late_scores
from synth.filtering.ledger import LATE_STEPS
from synth.filters.answer_type import ANSWER_TYPE
from synth.filters.base import Rule, Scorer, check_names
from synth.filters.best_alignment import ALIGNMENT, ROUGE_L
from synth.filters.coverage import COVERAGE
from synth.filters.decontamination import HeldoutIndex
from synth.filters.find import find_scorers
from synth.filters.form import FormLimits, form_scorer
from synth.filters.groundedness import EVIDENCE, FACTS, GROUNDEDNESS, RELEVANCE
from synth.filters.language import LANGUAGE
from synth.filters.lengths import length_scorer
from synth.filters.model_scorers import MODEL_SCORES
from synth.filters.nearness import NEARNESS, SAME_SENTENCE
from synth.filters.negation import NEGATION
from synth.filters.pii import pii_scorer
from synth.filters.polarity import POLARITY
from synth.filters.question_fit import QUESTION_FIT
from synth.filters.rules_file import COMBINED, Combined
from synth.filters.span_use import SPAN_USE

# Scores that generators give: the teacher's mean token probability (None where the endpoint does not say it).
GENERATED = frozenset({"confidence"})

# Those of the filter's own scores that are not there under every setting. An old one says nothing about new settings.
_AT_TIMES = frozenset({"length", "pii", COMBINED})


@dataclass(frozen=True, slots=True)
class Plan:
    """The rules in force and what gives the scores that they name.

    `own` are the scores that the filter gives itself, which a record loses before it is judged again. `late` are
    those that models give later, and `rules` on them wait until then.
    """

    config: FilterConfig
    rules: tuple[Rule, ...]
    scorers: tuple[Scorer, ...]
    own: frozenset[str]
    combined: Combined | None
    index: HeldoutIndex | None
    late: frozenset[str] = frozenset()

    @property
    def early_rules(self) -> tuple[Rule, ...]:
        """The rules that need no model."""
        return tuple(rule for rule in self.rules if rule.score not in self.late)

    @property
    def late_rules(self) -> tuple[Rule, ...]:
        """The rules that wait for a model."""
        return tuple(rule for rule in self.rules if rule.score in self.late)

    @classmethod
    def of(cls, config: FilterConfig, heldout: Sequence[HeldoutSet] = (), *, scorers: Sequence[Scorer] = ()) -> Self:
        """Make the plan that `config` asks for.

        Args:
            config: the rules and the bounds.
            heldout: the questions that no pair may ask.
            scorers: more scorers, for rules that name them.

        Raises:
            ConfigError: a rule or the rules file cannot be read, or a scorer cannot be found.
        """
        file = config.rules_file()
        rules = config.rules_in_force(file)
        combined = file.combined if file is not None else None
        wanted = {rule.score for rule in rules} | set(combined.names if combined is not None else ())
        # Whoever names a scorer wants to see its score, with a rule on it or without.
        users = (*find_scorers(config.scorer), *scorers)
        built_in = scorers_of(config, wanted)
        used = (*(s for s in built_in if config.scores == "all" or s.name in wanted), *users)
        known = (*built_in, *users)
        _check_own([scorer.name for scorer in known])
        own = _AT_TIMES.union(scorer.name for scorer in known)
        late = late_scores(config, wanted)
        if combined is not None and late & set(combined.names):
            late |= {COMBINED}
        return cls(
            config=config,
            rules=rules,
            scorers=used,
            own=own | late,
            combined=combined,
            index=HeldoutIndex.of(heldout) if heldout else None,
            late=late,
        )

    def undecided(self, record: Record) -> Record:
        """Return the record as it was before any filter: no decision, none of the filter's own scores."""
        judgements = record.judgements if not self.late else ()
        return replace(record, scores=self.others(record.scores), judgements=judgements, decision=None)

    def others(self, scores: Mapping[str, float | None]) -> dict[str, float | None]:
        """Return the scores that the filter does not give itself."""
        return {name: value for name, value in scores.items() if name not in self.own} if scores else {}

    def as_made(self, record: Record) -> Record:
        """Return the record as its generator made it: `undecided`, and without what any model said of it since."""
        record = self.undecided(record)
        others = {name: value for name, value in record.scores.items() if name not in MODEL_SCORES | VIEW_SCORES}
        return replace(record, scores=others, judgements=())


def scorers_of(config: FilterConfig, wanted: Iterable[str] = ()) -> tuple[Scorer, ...]:
    """Return the model-free scorers of this package in the order of the funnel.

    Args:
        config: the bounds.
        wanted: the scores that are ruled on; what needs an extra is there only if it is among them.
    """
    words = FormLimits(config.min_question_words, config.max_question_words, config.max_answer_words)
    tokens = config.token_limits
    return (
        form_scorer(words),
        *(
            ()
            if tokens is None or config.tokenizer is None
            else (length_scorer(tokens, load_tokenizer(config.tokenizer)),)
        ),
        LANGUAGE,
        EVIDENCE,
        GROUNDEDNESS,
        FACTS,
        NEGATION,
        RELEVANCE,
        ANSWER_TYPE,
        QUESTION_FIT,
        SPAN_USE,
        ALIGNMENT,
        ROUGE_L,
        COVERAGE,
        NEARNESS,
        SAME_SENTENCE,
        POLARITY,
        *((pii_scorer(),) if "pii" in set(wanted) else ()),
    )


def _check_own(names: Sequence[str]) -> None:
    """Refuse a user's score that would be taken for a step of the filter or another score."""
    taken = {COMBINED, *MODEL_SCORES, *VIEW_SCORES, *LATE_STEPS}
    for name in names:
        if name in taken or ":" in name:
            raise ConfigError(
                "the name has a colon, which reasons are split at"
                if ":" in name
                else "the filter has this name itself",
                where=f"scorer {name}",
                fix="rename the scorer",
            )


def check_rules(plan: Plan, scores: set[str]) -> None:
    """Check that each rule names a score that the filter gives or that a record has, and what the combined one needs.

    Raises:
        ConfigError: one does not; near matches are named.
    """
    given = {COMBINED} if plan.combined is not None else set()
    known = {*plan.own - (_AT_TIMES - {s.name for s in plan.scorers} - given), *GENERATED, *scores}
    asked = [(str(rule), rule.score) for rule in plan.rules]
    if plan.combined is not None and any(rule.score == COMBINED for rule in plan.rules):
        asked += [(f"{COMBINED} (of {name})", name) for name in plan.combined.names]
    for where, name in asked:
        if name in (MODEL_SCORES | VIEW_SCORES) - known:
            flag = "--student" if name in VIEW_SCORES else "--judge"
            raise ConfigError(
                f"no score is called {name!r} in these records",
                where=where,
                fix=f"a model gives it: name one with {flag}",
            )
    check_names(plan.rules, known)
