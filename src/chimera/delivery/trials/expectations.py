"""Whether an answer is what a test expects, as far as a rule can say it: texts in it, and a JSON Schema."""

from collections.abc import Iterator

import jsonschema_rs
import msgspec

from chimera.agents.cases import Expectation

SHOWN = 200
MOST_FAULTS = 5
_BACKTRACKS = 100_000


def faults(expected: Expectation, answer: str) -> Iterator[str]:
    """What is wrong with `answer`, in words."""
    for text in expected.contains:
        if text not in answer:
            yield f"the answer doesn't contain {text[:SHOWN]!r}; it begins {answer[:SHOWN]!r}"
    for text in expected.excludes:
        if text in answer:
            yield f"the answer contains {text[:SHOWN]!r}, which it may not"
    if expected.json_schema is not None:
        yield from _schema_faults(expected.json_schema, answer)


def _schema_faults(schema: dict[str, object], answer: str) -> Iterator[str]:
    try:
        found = msgspec.json.decode(answer.encode())
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
        yield f"the answer is no JSON ({error}); it begins {answer[:SHOWN]!r}"
        return
    try:
        validator = jsonschema_rs.validator_for(
            schema, offline=True, pattern_options=jsonschema_rs.FancyRegexOptions(backtrack_limit=_BACKTRACKS)
        )
        for number, fault in enumerate(validator.iter_errors(found)):
            if number == MOST_FAULTS:
                yield "the answer has more faults than these"
                return
            place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in fault.instance_path)
            yield f"the answer{place[:SHOWN]}: {fault.message[:SHOWN]}"
    except (ValueError, RecursionError) as error:
        yield f"the answer could not be held against the JSON Schema: {error}"[: 2 * SHOWN]
