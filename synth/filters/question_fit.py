"""The score `question_fit`."""

from synth.filters.base import FaultScorer

QUESTION_FIT = FaultScorer("question_fit", lambda record: None)
