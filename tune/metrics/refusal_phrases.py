"""How English says that it cannot answer: whole texts, and the ways in which a refusing sentence begins.

All of it is in lower case with straight quotes, as `tune.metrics.refusal` reads a text.
"""

import re

WHOLE = frozenset(
    phrase.strip()
    for phrase in """
    unanswerable, not answerable, no answer, no answer found, no answer possible, no answer available, n/a
    unknown, not known, unspecified, undetermined, not given, not specified, not stated, not mentioned, not available
    not provided, not found, not applicable, not in the text, not in the passage, not in the context, null
    no information, no info, no data, information not available, information not found, information not provided
    not enough information, insufficient information, not enough context, cannot answer, can't answer, cannot say
    can't say, cannot tell, can't tell, cannot be answered, can't be answered, cannot be determined, can't be determined
    don't know, do not know, dont know, dunno, idk, no idea, no clue, i have no idea, i have no clue, unsure, not sure
    """.replace("\n", ",").split(",")
) - {""}

SORRY = frozenset({"sorry", "i'm sorry", "i am sorry", "apologies", "my apologies", "i apologize", "i apologise"})

# What a text is called that an answer is looked for in. Of a policy or a manual less is said that way: "the policy does
# not cover theft" is an answer.
_TEXT = r"(?:text|passage|document|context|article|information|info|paragraph|page|section|excerpt|source)s?"
_BOOK = r"(?:handbook|manual|guide|policy|documentation|material|data)s?"
_THE = r"(?:(?:the|this|that|these|those|your|our|given|provided|available)\s+)*"
_AT_HAND = (
    r"(?:\s+(?:above|below|provided|given|itself|you (?:gave|provided)(?: me)?|"
    r"(?:for|to) (?:that|this|the|your) question))*"
)
_SOURCE = rf"{_THE}(?:{_TEXT}|{_BOOK}){_AT_HAND}"
_SURELY = (
    r"(?:\s+(?:really|just|simply|currently|actually|explicitly|directly|specifically|clearly|honestly|yet|even))*"
)
_KNOWLEDGE = r"(?:information|info|answers?|details?|mention|indication)"
_SOME = (
    r"(?:(?:that|this|the|any|enough|sufficient|specific|more|such|access to|relevant|necessary|required|further)\s+)*"
)
_TOLD = (
    r"(?:mentioned|stated|said|specified|given|provided|included|told|answered|indicated|covered|explained|listed|"
    r"discussed|addressed|described|disclosed|answerable|available|known|found|clear|determined|inferred|established)"
)
# What is told may be followed by where it is not told, or by what; "not available in blue" is an answer.
_NO_MORE = (
    rf"(?=$|[,.;:!)]|\s+(?:here|anywhere|(?:in|by|from|within)\s+{_SOURCE}|what|who|whom|whose|when|where|why|how|which|if|"
    r"whether)\b)"
)
_WHAT = rf"(?:{_SOURCE}|(?:the|this|that|your)\s+(?:question|answer|detail)s?|details?|answers?|it|that|this)"
_SAY = r"(?:mention|state|say|specify|tell|indicate|disclose|reveal|clarify)"
_TELL = r"(?:contain|provide|give|include|answer|cover|explain|list|discuss|address|describe)"
_INFORM = rf"(?:contain|provide|give|include|have|offer|hold)\s+(?:\w+\s+){{0,3}}?{_KNOWLEDGE}"
_DO_NOT = r"(?:do not|don't|dont|did not|didn't|does not|doesn't)"
_CANNOT = r"(?:cannot|can't|can not|could not|couldn't)"
_UNABLE = r"(?:(?:not able|unable)\s+to|won't be able to|will not be able to)"
_FIND_OUT = (
    r"(?:answer|tell|say|determine|confirm|know|find out|be (?:sure|certain)|help(?: you)? with (?:that|this)"
    rf"|(?:find|see|provide|give|access|locate)\s+{_SOME}{_KNOWLEDGE}(?!\s+to\b))"
)
_ASKED = r"(?:what|who|whom|whose|when|where|why|how|which|if|whether|about|that|this|the|your|it|any|enough|for)"

BEGINNING = re.compile(
    r"(?:(?:i'm|i am|we're|we are)\s+(?:(?:very|so|really)\s+)?(?:sorry|afraid)|sorry|unfortunately|regrettably|well|"
    r"(?:my )?apologies|i apologi[sz]e|(?:as far as|for all) i (?:know|can tell|can see)|to my knowledge|"
    r"as an ai(?:\s+\w+){0,4}|"
    rf"(?:based on|according to|from|in|within|given|judging by|going by)\s+{_SOURCE})"
    r"(?:\s*[,:;.!-]+)?(?:\s+(?:but|that))?\s+"
)

REFUSALS = tuple(
    re.compile(pattern)
    for pattern in (
        # I do not know. I do not have that information. We found no mention of it.
        rf"(?:i|we){_SURELY}\s+{_DO_NOT}{_SURELY}\s+know(?:$|[,.;!]|\s+{_ASKED}\b)",
        rf"(?:i|we){_SURELY}\s+{_DO_NOT}{_SURELY}\s+(?:have|find|see|possess)\s+{_SOME}(?:{_KNOWLEDGE}|data|knowledge|idea|clue)\b",
        rf"(?:i|we)\s+(?:have|found|see|find)\s+(?:no|not enough|insufficient)\s+{_SOME}(?:{_KNOWLEDGE}|idea|clue)\b",
        rf"(?:i|we){_SURELY}\s+{_CANNOT}{_SURELY}\s+{_FIND_OUT}\b",
        rf"(?:(?:i|we)(?:\s+am|\s+are|\s+was|'m|'re)?{_SURELY}\s+)?{_UNABLE}\s+{_FIND_OUT}\b",
        r"(?:i'm|i am|we're|we are)\s+(?:not\s+(?:(?:really|quite)\s+)?(?:sure|certain|aware)|unsure|unaware)\b",
        rf"{_CANNOT}{_SURELY}\s+(?:answer|say|tell|determine)\b",
        # The text does not say. That information is not given. The question cannot be answered.
        rf"{_THE}{_TEXT}{_AT_HAND}{_SURELY}\s+{_DO_NOT}{_SURELY}\s+(?:{_SAY}|{_TELL}|{_INFORM})\b",
        rf"{_THE}{_BOOK}{_AT_HAND}{_SURELY}\s+{_DO_NOT}{_SURELY}\s+(?:{_SAY}|{_INFORM})\b",
        rf"(?:it|that|this|they){_SURELY}\s+{_DO_NOT}{_SURELY}\s+{_SAY}(?:$|[,.;!]|\s+{_ASKED}\b)",
        rf"{_WHAT}(?:\s+(?:is|was|are|were)(?:\s+not|n't|\s+never)|'s\s+not){_SURELY}\s+{_TOLD}{_NO_MORE}",
        rf"{_WHAT}\s+(?:has|have)(?:\s+not|n't|\s+never){_SURELY}\s+been\s+{_TOLD}{_NO_MORE}",
        rf"{_WHAT}\s+{_CANNOT}{_SURELY}\s+be\s+{_TOLD}{_NO_MORE}",
        rf"{_WHAT}\s+(?:is|was|are|were|remains?)\s+(?:unanswerable|unknown|unspecified|undisclosed|unclear|unavailable){_NO_MORE}",
        rf"{_WHAT}\s+(?:is|was)\s+(?:impossible|not possible)\s+to\s+(?:say|tell|know|answer|determine)\b",
        # There is no information on it. No mention is made of it. Not stated in the text.
        rf"(?:there\s+(?:is|are|was|were)|there's)\s+(?:no|not enough|insufficient)\s+(?:\w+\s+)?{_KNOWLEDGE}\b",
        rf"(?:there\s+is|there's)\s+nothing\s+(?:(?:said|stated|written|in {_SOURCE})\s+)?(?:about|on|regarding)\b",
        rf"(?:no|not enough|insufficient)\s+(?:\w+\s+)?{_KNOWLEDGE}\s+(?:about|on|regarding|in|of|to answer|available|"
        r"(?:is|are|was|were|has been|can be)\s+(?:available|given|provided|found|made|mentioned)(?!\s+to\b))\b",
        rf"not\s+(?:(?:explicitly|directly)\s+)?{_TOLD}\s+(?:in|by|from)\s+{_SOURCE}",
        rf"nothing\s+in\s+{_SOURCE}\b",
    )
)

# What may follow a refusal without being an answer.
ADVICE = re.compile(
    r"(?:please|you\b|feel free|try\b|contact|ask\b|consult|check\b|refer\b|let me know|if you|sorry|perhaps you|"
    r"(?:could|can|would|do) you|(?:i|we) (?:can|could|would|suggest|recommend|will|may)\b|it (?:may|might|could) be "
    r"(?:worth|best|better|helpful|stated|mentioned|found|elsewhere|available)|for (?:more|further)\b|"
    r"more (?:information|context|details)\b)"
)
