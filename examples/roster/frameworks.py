"""Which framework suits a piece of work, by what the work is.

Three kinds of work, each with the words that speak for it: conversing (advising, teaching, explaining, judging,
knowing about), working with others (managing, coordinating, assisting, leading) and following steps (operating,
measuring, making, checking). A conversable AutoGen agent converses, a CrewAI crew works with others, a LangGraph
graph follows steps. The verb that the work begins with counts most, the names next, the definition least. A definition
that says what something is (`The methods of …`) tells of knowledge, so of conversing. What no word speaks for is steps.
"""

from dataclasses import dataclass
from typing import Literal

from roster.entry import Entry
from roster.words import stem, word_set, words

Work = Literal["conversing", "cooperating", "stepwise"]
FRAMEWORK: dict[Work, str] = {"conversing": "AutoGen", "cooperating": "CrewAI", "stepwise": "LangGraph"}

_SIGNALS: dict[Work, str] = {
    "conversing": """
        advice advise answer argue ask assess attend brief care clarify coach comfort communicate
        communication compose comprehend conceive consult consultation conversation converse convey convince
        correspond counsel create debate decide demonstrate describe determine diagnose dialogue discuss
        educate empathise encourage evaluate examine explain express feedback guidance guide handle identify
        inform instruct interact interpret interview introduce knowledge language lecture listen mediate
        mentor moderate motivate negotiate observe offer persuade present promote question read recommend
        reflect relate report research respond sell serve show speak speech study suggest support talk teach
        tell theory train translate tutor understand write""",
    "cooperating": """
        administer allocate arrange assign assist board chair collaborate colleague committee community
        consensus convene cooperate cooperation coordinate coordination crew delegate direct director employee
        ensure establish facilitate governance head help joint lead leader leadership liaise liaison manage
        management manager meeting mobilise network organise organize oversee participate partner partnership
        personnel plan project recruit roster schedule shift staff stakeholder steer strategic strategy
        subordinate supervise supervision supervisor supervisory support team teamwork together volunteer
        workforce""",
    "stepwise": """
        adjust align analyse apply assemble attach bake bend calculate calibrate check clean code collect
        compile configure construct control convert cook cut design detect develop dig disassemble draft drain
        draw drill drive enter execute extract fabricate feed fill filter fit fix follow grind handle harvest
        heat implement inspect install load lubricate maintain manufacture mark measure melt mix monitor mount
        move operate pack paint perform polish pour prepare press print procedure process produce program
        record remove repair replace sand saw sew sort stack step store tend test transfer transport treat
        trim update verify wash weigh weld wrap""",
}
_WORK_OF: dict[str, tuple[Work, ...]] = {}
for _work, _text in _SIGNALS.items():
    for _word in _text.split():
        _stem = stem(_word)
        _WORK_OF[_stem] = (*(one for one in _WORK_OF.get(_stem, ()) if one != _work), _work)

FIRST_VERB, IN_NAME, IN_DEFINITION = 4.0, 1.0, 0.6
KNOWLEDGE = 5.0
FIRST_WORDS = 24
"""Words of a definition that count; later ones tell about circumstances."""

_NAMING = word_set(
    """a an branch characteristics different elements features field kind kinds method methods principles properties
    range science sort sorts subset techniques the theory these this type types various"""
)


@dataclass(frozen=True, slots=True)
class Judgement:
    """The kind of work, and how much speaks for each kind."""

    work: Work
    conversing: float
    cooperating: float
    stepwise: float


def judge(entry: Entry) -> Judgement:
    """What kind of work `entry` is. A tie goes to conversing, then to cooperating."""
    score: dict[Work, float] = {"conversing": 0.0, "cooperating": 0.0, "stepwise": 0.0}
    label, definition = words(entry.label), words(entry.definition)[:FIRST_WORDS]
    knowledge = bool(definition) and definition[0] in _NAMING
    first = definition[0] if definition and not knowledge else (label[0] if label else "")
    for word, weight in (
        (first, FIRST_VERB),
        *((word, IN_NAME) for word in dict.fromkeys(label)),
        *((word, IN_DEFINITION) for word in dict.fromkeys(definition)),
    ):
        for work in _WORK_OF.get(stem(word), ()):
            score[work] += weight
    if knowledge:
        score["conversing"] += KNOWLEDGE
    if not any(score.values()):
        score["stepwise"] = 1.0
    best = max(score, key=lambda work: score[work])
    return Judgement(best, score["conversing"], score["cooperating"], score["stepwise"])
