"""Metrics by task, by name and of a user's own; ROUGE-L and the embedding; and the way from an answer to its score."""

import importlib.util
import math
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from synth.core import user_code
from synth.core.calls import Completion, Usage
from synth.core.errors import ConfigError
from synth.core.heldout import HeldoutItem
from synth.core.records import Passage
from tune.metrics.base import Reply
from tune.metrics.embedding import Embedding
from tune.metrics.find import find_metrics, metric_digests
from tune.metrics.rouge import RougeL
from tune.metrics.scoring import Answered, score_all
from tune.metrics.support import Support

needs_wordllama = pytest.mark.skipif(
    importlib.util.find_spec("wordllama") is None, reason="wordllama is not installed (the extra `semantic`)"
)


def item(*answers: str, key: str = "i", unanswerable: bool = False, label: str | None = None) -> HeldoutItem:
    return HeldoutItem(key, "How often?", answers, "d", unanswerable=unanswerable, label=label)


def reply(text: str, *references: str) -> Reply:
    return Reply(item(*references), text)


def test_rouge_l_is_that_computed_by_hand() -> None:
    # The longest common subsequence of "police killed the gunman" and "police kill the gunman" has three of four words.
    found = RougeL().score(
        [
            reply("police kill the gunman", "police killed the gunman"),
            reply("the gunman kill police", "police killed the gunman"),
            reply("the gunman kill police", "nothing", "the gunman police"),
            reply("", "police"),
            reply("police", "…"),
            reply("police"),
        ]
    )
    assert found == [0.75, 0.5, pytest.approx(2 * 3 / 7), 0.0, None, None]


@pytest.mark.parametrize(
    ("text", "reference", "value"),
    [
        ("η γάτα κάθισε", "η γάτα έφυγε", 2 / 3),
        ("Le café est fermé", "le cafe est fermé", 0.75),
        ("每六週除垢", "每七週除垢", 0.8),
        ("Η ΓΆΤΑ", "η γάτα", 1.0),
    ],
)
def test_rouge_l_reads_every_script(text: str, reference: str, value: float) -> None:
    assert RougeL().score([reply(text, reference)]) == [pytest.approx(value)]


@needs_wordllama
def test_the_embedding_knows_other_words_for_the_same() -> None:
    same, near, far, empty, none = Embedding().score(
        [
            reply("the dog sleeps", "the dog sleeps"),
            reply("the puppy is asleep", "a bill of lading", "the dog sleeps"),
            reply("quarterly tax return", "the dog sleeps"),
            reply("", "the dog sleeps"),
            reply("the dog sleeps", ""),
        ]
    )
    assert same == pytest.approx(1.0) and same <= 1
    assert near is not None and far is not None and near > far + 0.2
    assert empty == 0.0 and none is None
    assert Embedding().score([]) == [] and Embedding().score([reply("a dog")]) == [None]


def test_each_task_has_its_metrics_and_named_ones_come_after() -> None:
    names = [[metric.name for metric in find_metrics(task)] for task in ("qa", "labels")]
    assert names == [["f1", "em"], ["correct"]]
    assert [metric.name for metric in find_metrics("qa", ["rouge_l", "em"])] == ["f1", "em", "rouge_l"]
    assert next(metric.name for metric in find_metrics("free")) == "rouge_l"


def test_the_embedding_is_taken_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    for there in (True, False):
        monkeypatch.setattr("tune.metrics.find.installed", lambda there=there: there)
        assert ("embedding" in [metric.name for metric in find_metrics("free")]) == there


def test_a_set_with_unanswerable_items_is_scored_as_squad_v2() -> None:
    refused = Reply(item("the information desk"), "I do not have that information.", refused=True)
    for unanswerable, value in ((True, 0.0), (False, pytest.approx(0.25))):
        overlap = find_metrics("qa", unanswerable=unanswerable)[0]
        assert overlap.score([refused]) == [value]


OWN = """
from synth.core.heldout import HeldoutItem

def short(answer: str, item: HeldoutItem) -> float:
    return 1.0 if len(answer) <= 5 else 0.0

def share(answer, item):
    return {"nan": float("nan"), "high": 1.01, "low": -0.01, "text": "much", "none": None, "yes": True}[answer]

def fails(answer, item):
    return 1 / 0

class Loud:
    name = "loud"
    def score(self, replies):
        return [float(reply.text.isupper()) for reply in replies]

class Lost:
    name = "lost"
    def score(self, replies):
        return [1.0]

class Needy:
    name = "needy"
    def __init__(self, more):
        self.more = more

nothing = 3
f1 = short
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of a user's own metrics."""
    name = f"own_metrics_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


def test_a_function_is_a_metric(own: str) -> None:
    metric = find_metrics("qa", [f"{own}:short"])[-1]
    assert (metric.name, metric.words) == ("short", "short")
    assert metric.score([reply("no"), reply("certainly not")]) == [1.0, 0.0]
    share = find_metrics("qa", [f"{own}:share"])[-1]
    assert share.score([reply("yes"), reply("none")]) == [1.0, None]


def test_an_object_is_a_metric(own: str) -> None:
    loud = find_metrics("qa", [f"{own}:Loud"])[-1]
    assert (loud.name, loud.words) == ("loud", "loud")
    assert loud.score([reply("NO"), reply("no")]) == [1.0, 0.0]


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("share", "nan", r"metric share: gave nan for item 'i'"),
        ("share", "high", r"metric share: gave 1\.01 for item 'i'; give a number from 0"),
        ("share", "low", r"gave -0\.01"),
        ("share", "text", r"gave 'much'"),
        ("fails", "", r"metric fails: failed at item 'i' \(ZeroDivisionError"),
        ("Lost", "", r"metric lost: gave 1 numbers for 2 answers"),
    ],
)
def test_what_is_no_number_from_0_to_1_names_the_metric_and_the_item(own: str, name: str, text: str, says: str) -> None:
    metric = find_metrics("qa", [f"{own}:{name}"])[-1]
    with pytest.raises(ConfigError, match=says):
        metric.score([reply(text), reply(text)])


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("rogue_l", r"no metric is called 'rogue_l'; did you mean rouge_l"),
        ("no_such_module:short", r"cannot be imported \(ModuleNotFoundError"),
        ("{own}:shrot", r"has no 'shrot'; did you mean short"),
        ("{own}:nothing", "is no metric"),
        ("{own}:Needy", "cannot be made without arguments"),
        ("correct", "is for sets of labels"),
    ],
)
def test_a_metric_that_is_none_is_refused_with_the_fix(own: str, spec: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        find_metrics("qa", [spec.format(own=own)])


def test_two_metrics_of_one_name_are_refused(own: str) -> None:
    assert find_metrics("labels", [f"{own}:f1"])[-1].name == "short"
    with pytest.raises(ConfigError, match="two metrics are called 'short'"):
        find_metrics("qa", [f"{own}:f1", f"{own}:short"])


def test_an_entry_point_is_a_metric_and_its_code_has_a_digest(own: str, monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("brief", f"{own}:short", "tune.metrics")
    monkeypatch.setattr(user_code, "entry_points", lambda *, group: [point] if group == "tune.metrics" else [])
    assert find_metrics("free", ["brief"])[-1].score([reply("no")]) == [1.0]
    digests = metric_digests(["f1", "brief", f"{own}:Loud"])
    assert set(digests) == {"brief", f"{own}:Loud"} and len(set(digests.values())) == 1


def completion(text: str, *, cut_off: bool = False, logprobs: tuple[float, ...] = ()) -> Completion:
    return Completion(
        text,
        "length" if cut_off else "stop",
        Usage(11, 3),
        logprobs=tuple((word, value) for word, value in zip(text.split(), logprobs, strict=False)),
        seconds=0.25,
    )


def test_an_answer_becomes_a_score() -> None:
    kettle = HeldoutItem("a", "How often is the kettle descaled?", ("every six weeks",), "kettle.md")
    open_item = HeldoutItem("b", "Who made the kettle?", (), "kettle.md", unanswerable=True)
    support = Support([Passage("kettle.md", "Descale the kettle every six weeks.", 0, 35)])
    answers = [
        Answered(
            kettle, "tuned", completion("every six weeks", logprobs=(math.log(0.5), math.log(0.5), math.log(0.5)))
        ),
        Answered(kettle, "base", completion("every ten weeks or so", cut_off=True)),
        Answered(open_item, "tuned", completion("I do not have that information.")),
        Answered(open_item, "base", Completion("Smith & Sons")),
    ]
    right, wrong, refused, made_up = score_all(answers, find_metrics("qa", unanswerable=True), support=support)
    assert (right.item_id, right.document_id, right.contender) == ("a", "kettle.md", "tuned")
    assert right.values == {"f1": 1.0, "em": 1.0} and right.supported is True
    assert right.confidence == pytest.approx(0.5) and right.seconds == 0.25
    assert (right.prompt_tokens, right.completion_tokens, right.words) == (11, 3, 3)
    assert wrong.values["em"] == 0.0 and wrong.values["f1"] == pytest.approx(0.5)
    assert wrong.cut_off and wrong.supported is False and wrong.confidence is None
    assert refused.refused and refused.unanswerable and refused.supported is None
    assert refused.values == {"f1": 1.0, "em": 1.0}
    assert made_up.values == {"f1": 0.0, "em": 0.0} and made_up.supported is False and made_up.seconds is None
    assert (right.label, right.wanted) == (None, None)
    (own,) = score_all([Answered(kettle, "base", completion("Pass."))], [], support=support, refusals=["pass"])
    assert own.refused and own.supported is None and own.values == {}


def test_the_answer_of_a_label_set_has_a_label_and_no_support() -> None:
    graded = item("3", label="3")
    answers = [Answered(graded, "base", completion(text)) for text in ("Grade: 3", "unknown", "4")]
    support = Support([Passage("d", "How often is a grade 3 given?", 0, 29)])
    found = score_all(answers, find_metrics("labels", labels=("3", "4")), labels=("3", "4"), support=support)
    assert [(s.label, s.wanted, s.values["correct"]) for s in found] == [("3", "3", 1), (None, "3", 0), ("4", "3", 0)]
    assert not any(score.refused or score.supported is not None for score in found)


def test_a_metric_that_cannot_be_measured_is_missing_from_the_values(own: str) -> None:
    metrics = find_metrics("free", [f"{own}:share"])
    (found,) = score_all([Answered(item("none at all"), "base", completion("none"))], metrics)
    assert "share" not in found.values and found.values["rouge_l"] == pytest.approx(0.5)
    assert found.supported is None
