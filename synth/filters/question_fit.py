"""The score `question_fit`: does the question, with the answer in its gap, say what the evidence says?

For teachers that copy. A pair taken from one sentence can be laid back on that sentence: the subject that
"What is emptied?" asks for stands before "is emptied", the object of "What does it lend?" after "lends". A
tiny teacher that loses the thread breaks this order, and does so in words that all come from the passage,
so no count of words sees it. Rephrased questions break it rightly: this score belongs to the preset
"extractive" and is no rule of the general one.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from synth.core.records import Record
from synth.filters.alignment import AUXILIARY, BE, DO, MODAL, Laid, is_number, laid_faults
from synth.filters.base import FaultScorer
from synth.filters.pair import pair_of
from synth.filters.words import STOPWORDS, read, word_set

_FINITE = BE | DO | MODAL | {"has"}
_JOINTS = word_set(
    """
    if when while that which who whom where because as since unless until before after whether and or than
    how what why once so but though although whose
    """
)
_PREPOSITIONS = word_set(
    """
    of in on for with from to at by about above below under over behind between beside through during per
    into onto within without near against since until because down off up
    """
)
_OPENERS = word_set(
    """
    the a an every each all its your their this these those no any some it they we i he she
    """
)
_POSTMODIFIERS = (_PREPOSITIONS - {"down", "off", "up", "until", "because", "since"}) | {"who", "which", "that"}
_ADVERBS = word_set(
    """
    also usually normally always often only never still already then just now not be been
    """
)
_BEFORE_ACTION = word_set("and or then to please do does did may")
_RELATIVE = word_set("that which who")
_NO_THING = word_set("in on at for from with to by into onto of until because when if while")
_PARTICIPLES = word_set("run led made held kept set sent built sold written driven given taken drawn worn known")
_FREE = word_set("away forwards backwards together apart early late upwards downwards twice first again instead today")
_LOOSE_ENDS = word_set("though although if while unless whether and or the a an but than as because every each")
_PLACES = word_set(
    """
    here there home upstairs downstairs outside indoors outdoors inside nearby abroad online anywhere
    everywhere next close
    """
)
_S_VERBS = word_set(
    """
    press pass process access discuss guess miss focus address dress cross express bypass assess
    """
)
_MODAL_DO = MODAL | DO
_MODAL_DO_TO = _MODAL_DO | {"to"}
_BE_MODAL = BE | MODAL
_PREPOSITIONS_OR_AND = _PREPOSITIONS | {"and", "or"}
_JOINING = (_PREPOSITIONS | _JOINTS | {"whereas"}) - {"to"}
_NO_VERBS = _OPENERS | _PREPOSITIONS | _JOINTS
_NO_PLAIN_VERBS = _FINITE | _S_VERBS | _OPENERS
_LEADS_IN = MODAL | _ADVERBS | _BEFORE_ACTION
_VAGUE = STOPWORDS | _ADVERBS
_NAMING = BE | {"as", "called", "named"}
_SPATIAL = _PREPOSITIONS | _PLACES | {"beneath", "underneath", "alongside", "opposite", "around", "among", "onto"}
_DOING = word_set("do happen happens")


def _no_verb(pair: Laid) -> bool:
    """Something else stands where a verb has to: "What should you every letter?", "What above 60 pounds?"."""
    rest = pair.rest
    if not rest or (pair.auxiliary == "do" and rest[0] in {"a", "an", "each", "every"}):
        return True
    if pair.auxiliary == "do" and len(pair.answer.words) > 1 and pair.follows(pair.start - 1) == rest[-1]:
        # "What do our returns desk?" with "accepts unopened goods": the answer brings the verb.
        first, second = pair.answer.words[:2]
        if first.endswith("s") and not first.endswith("ss") and second not in _PREPOSITIONS_OR_AND:
            return True
    if pair.auxiliary in _MODAL_DO and rest[0] in {"you", "i", "we", "one"}:
        verb = next((w for w in rest[1:] if w not in _ADVERBS and not w.endswith("ly")), "")
        plural = verb.endswith("s") and not verb.endswith("ss") and verb not in _S_VERBS
        return not verb or verb in _NO_VERBS or verb in rest[:1] or plural
    if pair.auxiliary:
        if pair.auxiliary in _MODAL_DO and rest[0] in _JOINING:
            return True
        passive = pair.auxiliary in MODAL and rest[0].endswith("ed")
        return passive and any(f"{w} {rest[0]}" in pair.source.line for w in BE)
    return pair.wh in {"what", "who"} and (rest[0] in _PREPOSITIONS or rest[0] in _OPENERS)


def _uninflected(pair: Laid) -> bool:
    """After "does" no verb of the source stands in its base form: "What does the desk accepts?"."""
    if "have" in pair.rest:
        # "What does it have?" with what it has done: "swallowed a snail".
        first = next((w for w in pair.answer.words if w not in _ADVERBS and not w.endswith("ly")), "")
        return pair.auxiliary in DO and first.endswith("ed")
    ordered = pair.auxiliary in MODAL and pair.rest[:1] in {("the",), ("a",), ("an",)}
    if "do" in pair.rest:
        return False
    inflected = ordered and any(w.endswith("s") and not w.endswith(("ss", "us")) for w in pair.rest)
    if not inflected and pair.auxiliary not in {"does", "did"}:
        return False
    if not _MODAL_DO_TO.isdisjoint(pair.source.words):
        return False
    content = [w for w in pair.rest if w not in STOPWORDS]
    return bool(content) and all(w in pair.source.words for w in content)


def _lost_verb(pair: Laid) -> bool:
    """The verb that the source has after the same auxiliary is gone: "Where can the cushion?"."""
    if pair.auxiliary not in MODAL or "do" in pair.rest or pair.source.words.count(pair.auxiliary) != 1:
        return False
    after = pair.source.words.index(pair.auxiliary) + 1
    stems, words = pair.source.stems[after:], pair.source.words[after:]
    verb = next((s for s, w in zip(stems, words, strict=True) if w not in STOPWORDS and not w.endswith("ly")), None)
    return verb is not None and verb not in pair.asked and verb not in pair.answer.stems


def _two_verbs(pair: Laid) -> bool:
    """Two finite verbs have no joint between them: "How long does it stay have to be set?"."""
    if not pair.auxiliary:
        return False
    if pair.rest[:1] == ("been",) and pair.auxiliary not in {"has", "have", "had"}:
        return True
    if pair.auxiliary in BE and pair.rest[-1:] == ("do",):
        return True
    helped = pair.auxiliary in _MODAL_DO
    for word, after in zip(pair.rest, (*pair.rest[1:], ""), strict=False):
        if word in _JOINTS:
            return False
        plain = helped and word.endswith("s") and not word.endswith(("ss", "us")) and word not in _NO_PLAIN_VERBS
        if plain and (after in _OPENERS or (after and is_number(after))):
            return True
        if word in _FINITE and not (word == "do" and helped):
            return True
    return False


def _loose_end(pair: Laid) -> bool:
    """The question stops where its source goes on: "and", or "cooked by the course" (leader)."""
    last = pair.question.words[-1]
    if last in _LOOSE_ENDS:
        return True
    if pair.source.words.count(last) != 1:
        return False
    place = pair.source.words.index(last) + 1
    after = pair.follows(place)
    if not after or place == pair.start or pair.source.stems[place] in pair.asked:
        return False
    return _goes_on(after) or (after in _BE_MODAL and not _JOINTS.isdisjoint(pair.rest))


def _goes_on(word: str) -> bool:
    """Whether a word that follows a noun phrase is likely to be a part of it."""
    return word not in STOPWORDS and not word.endswith("ly") and not is_number(word) and word not in _FREE


def _no_action(pair: Laid) -> bool:
    """A "What should you do?" is answered with a thing or a name, not with a verb."""
    if pair.wh != "what" or pair.lead or "do" not in pair.rest:
        return False
    first = pair.answer.words[0]
    before = pair.source.words[pair.start - 1] if pair.start > 0 and pair.follows(pair.start) else ""
    leads_in = before in _LEADS_IN or before in pair.asked or before.endswith("ly")
    if before and not leads_in:
        return True
    after = pair.follows(pair.end) if pair.start >= 0 else ""
    if after and (len(pair.answer.words) == 1 or after in _BE_MODAL):
        return True
    named = pair.start > 0 and pair.answer.tokens[0][0].isupper() and pair.answer.words[0] not in _OPENERS
    return first in _OPENERS or named or (len(pair.answer.words) == 1 and first.endswith("ed")) or first in BE


def _repeats(pair: Laid) -> bool:
    """A content word stands more often in the question than in the sentence that it is copied from."""
    asked = pair.question.content
    if len(set(asked)) == len(asked):
        return False  # nothing stands twice
    held = pair.source.stems
    return any(count > held.count(stem) > 0 for stem, count in Counter(asked).items())


def _nothing_new(pair: Laid) -> bool:
    """The answer repeats the question (a word that the source has once is in both), or is no more than "usually"."""
    content = set(pair.answer.content)
    if content and not content.isdisjoint(pair.question.content):
        shared = {s for s in content.intersection(pair.question.content) if pair.source.stems.count(s) == 1}
        if (
            shared
            and pair.start >= 0
            and not shared <= {s for word in (*pair.lead, *pair.rest[:1]) for s in read(word).stems}
        ):
            return True
    choice = "or" in pair.question.words and "or" not in pair.answer.words
    if content and content <= pair.asked and not choice:
        return True
    asks = pair.wh in {"what", "who", "which"}
    return asks and not any(w not in _VAGUE and not w.endswith("ly") for w in pair.answer.words)


def _other_subject(pair: Laid) -> bool:
    """The answer is not what stands before the predicate that the question copies."""
    if pair.start < 0 or pair.wh not in {"what", "who", "which"} or not pair.rest:
        return False
    if not pair.auxiliary:
        verb = pair.rest[1] if pair.rest[0] in pair.answer.words and len(pair.rest) > 1 else pair.rest[0]
        heads = [i for i, stem in enumerate(pair.source.stems) if stem in read(verb).stem_set]
    elif pair.lead or pair.rest[0] in _OPENERS or pair.auxiliary in DO:
        return False
    else:
        opening = (pair.auxiliary, pair.rest[0])
        heads = [i for i in range(len(pair.source.words) - 1) if pair.source.words[i : i + 2] == opening]
    if pair.auxiliary in MODAL and pair.auxiliary not in pair.source.words and pair.rest[0] == pair.source.words[0]:
        return "do" not in pair.rest  # an order ("Charge it indoors") has no subject to ask for
    if not heads:
        return not pair.auxiliary and verb not in pair.source.words and pair.asked <= pair.source.stem_set
    return not any(_is_subject(pair, head) for head in heads)


def _is_subject(pair: Laid, head: int) -> bool:
    """Whether the answer ends at the predicate, or just before what describes it ("members of the club must")."""
    place = pair.end
    if pair.follows(pair.start - 1) == "of":
        return False
    while place < head and (pair.source.words[place] in _ADVERBS or pair.source.words[place].endswith("ly")):
        place += 1
    if not pair.follows(pair.end) and not pair.follows(head) and pair.end < head:
        return True  # an apposition stands between two commas
    return place == head or (bool(pair.auxiliary) and place < head and pair.follows(place) in _POSTMODIFIERS)


def _other_object(pair: Laid) -> bool:
    """The verb that the question ends on is not the one that the answer follows in the source."""
    asks = pair.wh in {"what", "which", "who", "whom"} or pair.lead[:1] in {("much",), ("many",)}
    if pair.start < 0 or not asks or pair.auxiliary not in _MODAL_DO or "do" in pair.rest or "happen" in pair.rest:
        return False
    if _opens_with_verb(pair):
        return False
    if pair.start > 0 and not pair.follows(pair.start):
        return True
    for i in range(pair.start - 1, -1, -1):
        word = pair.source.words[i]
        if word not in STOPWORDS and not is_number(word):
            return pair.source.stems[i] not in pair.asked
    return True


def _opens_with_verb(pair: Laid) -> bool:
    """Whether the question has no subject of its own ("What can reach 70 degrees?")."""
    return bool(pair.rest) and f" {pair.auxiliary} {pair.rest[0]} " in pair.source.line


def _other_predicate(pair: Laid) -> bool:
    """The answer follows neither "is" nor a comma nor a word of the question: "What is a guest?", "a room"."""
    if pair.start < 1 or pair.wh != "what" or pair.lead or pair.auxiliary not in BE or pair.rest[:1] == ():
        return False
    if pair.rest[0] not in _OPENERS and not pair.question.tokens[-len(pair.rest)][0].isupper():
        return False
    if not pair.follows(pair.start):
        return False
    for i in range(pair.start - 1, -1, -1):
        word = pair.source.words[i]
        if word in {"a", "an", "the"} or word in _ADVERBS:
            continue
        verb = pair.answer.words[0].endswith("s") and len(pair.answer.words) > 1 and word == pair.rest[-1]
        return verb or (word not in _NAMING and pair.source.stems[i] not in pair.asked)
    return False


def _no_place(pair: Laid) -> bool:
    """A "where" has no preposition at the answer's start or before it, and no word of place."""
    if pair.wh != "where" or pair.start < 0:
        return False
    first = pair.answer.words[0]
    before = next((w for w in reversed(pair.source.words[: pair.start]) if w not in {"the", "a", "an"}), "")
    return first not in _SPATIAL and before not in _SPATIAL and pair.question.words[-1] not in _SPATIAL


def _no_manner(pair: Laid) -> bool:
    """A "how" is answered with a mere thing: "the tax", "twine"."""
    if pair.wh != "how" or pair.lead or not pair.auxiliary or pair.start < 0:
        return False
    first = pair.answer.words[0]
    return first in {"the", "a", "an", "no", "any", "some", "each", "every"} or (
        len(pair.answer.words) == 1 and not first.endswith("ly")
    )


def _cut_end(pair: Laid) -> bool:
    """The answer stops where its phrase goes on: "between April", "a grille covered" (with leaves)."""
    words, after = pair.answer.words, pair.follows(pair.end) if pair.start >= 0 else ""
    if after and _goes_on(after) and pair.source.stems[pair.end] not in pair.asked:
        return True
    if after in AUXILIARY and _JOINTS - {"and", "or", "than"} & set(words[1:]) and after not in pair.question.words:
        return True
    before = pair.source.words[pair.start - 1] if pair.start > 0 else ""
    return (
        (words[0] == "between" and "and" not in words)
        or (after in {"with", "by", "of"} and _participle(words[-1]))
        or (after in {"by", "to"} and is_number(words[-1]) and pair.follows(pair.end + 1)[:1].isdigit())
        or (len(words) > 2 and words[-2] in {"but", "though"})
        or (words[0] == "to" and before == "up")
        or (pair.wh in {"what", "who"} and not pair.lead and words[0] in _NO_THING)
        or (len(words) > 2 and words[-2] == "and" and after in _PREPOSITIONS and _participle(words[-1]))
        or (after in _PREPOSITIONS and after not in pair.question.words and bool(_RELATIVE & set(words[1:])))
        or (after in {"and", "or"} and pair.auxiliary in DO and _list_goes_on(pair))
        or (after in {"and", "or"} and words[0] in _OPENERS and _participle(words[-1]))
    )


def _participle(word: str) -> bool:
    return word.endswith("ed") or word in _PARTICIPLES


def _list_goes_on(pair: Laid) -> bool:
    """Whether "and" after the answer adds another thing ("the name and mobile number"), not another verb."""
    after = pair.follows(pair.end + 1)
    return bool(after) and after not in AUXILIARY and not after.endswith(("s", "ed", "ly"))


def _other_clause(pair: Laid) -> bool:
    """All that a "what" or "who" asks about stands in one clause, the answer in another that says more."""
    if pair.start < 0 or not _DOING.isdisjoint(pair.rest):
        return False
    asks = pair.lead == ("much",) or (pair.wh in {"what", "who", "which"} and not pair.lead)
    if not asks or not pair.source.stem_set.issuperset(pair.question.content):
        return False
    breaks = [i for i in range(1, len(pair.source.words)) if not pair.follows(i)]
    left = max((i for i in breaks if i <= pair.start), default=0)
    right = min((i for i in breaks if i >= pair.end), default=len(pair.source.words))
    clause = zip(pair.source.stems[left:right], pair.source.words[left:right], strict=True)
    own = {stem for stem, word in clause if word not in STOPWORDS}
    return not own <= set(pair.answer.content) and own.isdisjoint(pair.question.content)


def _not_quoted(pair: Laid) -> bool:
    return pair.start < 0


_CHECKS: Mapping[str, Callable[[Laid], bool]] = {
    "not_quoted": _not_quoted,
    "no_verb": _no_verb,
    "uninflected": _uninflected,
    "lost_verb": _lost_verb,
    "two_verbs": _two_verbs,
    "loose_end": _loose_end,
    "no_action": _no_action,
    "repeats": _repeats,
    "nothing_new": _nothing_new,
    "other_subject": _other_subject,
    "other_object": _other_object,
    "other_predicate": _other_predicate,
    "no_place": _no_place,
    "no_manner": _no_manner,
    "cut_answer": _cut_end,
    "other_clause": _other_clause,
}


def _fit_faults(record: Record) -> Sequence[str] | None:
    found, pair = laid_faults(record, _CHECKS), pair_of(record)
    if pair.is_qa and pair.answered and pair.evidence is not None and pair.asked.lstrip()[:1].islower():
        return ["no_opening"]  # the head of the question is lost
    return found


QUESTION_FIT = FaultScorer("question_fit", _fit_faults)
