"""Other people's words on a terminal: definitions, logs and models' answers may hold more than meets the eye."""

import re
import sys

_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def clean(text: str) -> str:
    """`text` with what would steer a terminal, or turn its direction, written out; line ends and tabs stay.

    Such are C0 and C1 control codes (ECMA-48) and the overrides of the bidirectional algorithm (UAX 9).
    """
    return _UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def shown(text: str) -> str:
    """`text` for standard output: cleaned for a terminal, as it is for a file or a program."""
    return clean(text) if sys.stdout.isatty() else text
