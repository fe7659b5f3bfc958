"""From an entry to a whole definition in ADaC v2.0: name, tags, capabilities, behaviour."""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from roster.behaviours import behaviour, first_sentence
from roster.entry import Entry
from roster.frameworks import FRAMEWORK, Judgement, judge
from roster.words import content_words, plain, slug, stem

CHARACTERS_OF_KEY = 8
CAPABILITY_WORDS = 2
LONGEST_FUNCTION = 300

_WORKS_WITH = {
    "people": "patient client customer user student child children staff family person people individual",
    "software": "software computer ict application program programming digital online web",
    "data": "data database information record statistics statistical dataset",
    "documents": "document report contract file form letter text publication",
    "machines": "machine machinery equipment engine tool device instrument vehicle",
    "regulations": "law legal legislation regulation compliance standard policy licence",
    "money": "budget financial finance cost price payment invoice tax",
    "materials": "material metal wood chemical food textile product waste",
}
_INTEGRATION_OF = {stem(word): name for name, text in _WORKS_WITH.items() for word in text.split()}


def name_of(entry: Entry) -> str:
    """A slug of the label and eight characters of the key: readable, and unique in its roster."""
    return f"{slug(entry.label)}-{re.sub('[^a-z0-9]', '', plain(entry.key))[:CHARACTERS_OF_KEY]}"


def definition(entry: Entry, rarity: Callable[[str], float]) -> dict[str, Any]:
    """The definition of `entry`'s agent; `rarity` tells how much a word says among the roster's words."""
    entry = _without_places(entry)
    judgement = judge(entry)
    return {
        "schema_version": "ADaC v2.0",
        "metadata": {
            "name": name_of(entry),
            "version": "1.0.0",
            "description": entry.definition,
            "tags": tags(entry, rarity),
        },
        "specification": {
            "framework": FRAMEWORK[judgement.work],
            "runtime": "python:3.11-slim",
            "resources": {"cpu": "100m", "memory": "128Mi", "storage": "1Gi"},
        },
        "capabilities": {
            "primary_functions": functions(entry),
            "integration_points": points(judgement),
            "communication_protocols": ["http", "sse", "openai"],
        },
        "behaviour": behaviour(entry, judgement.work),
    }


def tags(entry: Entry, rarity: Callable[[str], float]) -> list[str]:
    """Capability tags from the words that say most, domain tags, and what the agent works with."""
    label = content_words(entry.label) or content_words(entry.definition)
    rarest = sorted(label[1:], key=lambda word: (-rarity(word), word))[:CAPABILITY_WORDS]
    named = (slug(capability, longest=60) for capability in entry.capabilities)
    capabilities = [f"capability:{word}" for word in dict.fromkeys([*label[:1], *rarest, *named])]
    domains = [f"domain:{slug(domain, longest=60)}" for domain in dict.fromkeys(entry.domains)]
    used = {_INTEGRATION_OF[one] for one in map(stem, entry.words()) if one in _INTEGRATION_OF}
    return [*sorted(capabilities), *sorted(domains), *(f"integration:{name}" for name in sorted(used))]


def functions(entry: Entry) -> list[str]:
    """The label, and what the definition's first sentence says that the agent does."""
    return list(dict.fromkeys((entry.label[:LONGEST_FUNCTION], first_sentence(entry.definition)[:LONGEST_FUNCTION])))


def points(judgement: Judgement) -> list[str]:
    """Which parts of the platform the agent may reach, by the kind of its work."""
    named = {"conversing": ["service:sessions"], "cooperating": ["service:agents"], "stepwise": []}[judgement.work]
    knows = judgement.work == "conversing" and judgement.stepwise == 0
    checks = judgement.work == "stepwise" and judgement.conversing > 0
    return [
        "service:models",
        *named,
        *(["jaegis:research"] if knows else []),
        *(["jaegis:quality-assurance"] if checks else []),
    ]


def _without_places(entry: Entry) -> Entry:
    """The entry with no braces, which behaviour texts would take for places to fill in."""
    texts = (entry.label, entry.definition, entry.other_names)
    if not any("{" in text or "}" in text for text in texts):
        return entry
    label, meaning, other = (text.replace("{", "(").replace("}", ")") for text in texts)
    return replace(entry, label=label, definition=meaning, other_names=other)
