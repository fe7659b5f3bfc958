"""Credentials of tools: fetched through the platform when a tool needs them, and kept out of everything that is said.

A definition only names references. Their values come from the platform, which checks that the agent's document holds
the reference, for the call that needs them. What a value was is remembered as long as the agent is loaded, so that it
can be taken out of errors, logs and outputs: a server that answers "401 for token abc" must not teach the model `abc`.
"""

import base64
from collections.abc import Mapping
from typing import Protocol
from urllib.parse import quote, quote_plus

import msgspec

from chimera_host.contract.problem import ProblemError
from chimera_host.errors import CallCancelled, ToolFailed

SHORTEST = 4
"""Values below this length are not looked for: they are no secrets, and would be found everywhere."""


class CredentialSource(Protocol):
    """The part of the platform's client that is needed here."""

    async def credentials(self, call_id: str, names: list[str]) -> dict[str, str]:
        """The values of references of the agent's document."""


class Credentials:
    """An agent's credentials."""

    def __init__(self, source: CredentialSource) -> None:
        """Fetch from `source`."""
        self._source = source
        self._spellings: dict[str, str] = {}

    async def fetch(self, call_id: str, wanted: Mapping[str, str]) -> dict[str, str]:
        """The values of the references in `wanted`, by the names it gives them. Nothing is asked for nothing."""
        if not wanted:
            return {}
        try:
            values = await self._source.credentials(call_id, sorted(set(wanted.values())))
        except CallCancelled:
            raise
        except ProblemError as error:
            raise ToolFailed(f"a credential is missing: {error.detail}", next_step=error.next_step) from None
        missing = [reference for reference in wanted.values() if reference not in values]
        if missing:
            raise ToolFailed(f"the platform did not answer the credential {missing[0]}")
        for reference in wanted.values():
            self._remember(reference, values[reference])
        return {name: values[reference] for name, reference in wanted.items()}

    def scrub(self, text: str) -> str:
        """The text with every value that was fetched replaced by its reference, in each way it may be spelt."""
        for spelling, reference in self._spellings.items():
            if spelling in text:
                text = text.replace(spelling, f"[{reference}]")
        return text

    def _remember(self, reference: str, value: str) -> None:
        if len(value) < SHORTEST:
            return
        escaped = msgspec.json.encode(value).decode()[1:-1]
        spellings = {value, value.strip(), escaped, quote(value, safe=""), quote_plus(value), repr(value)[1:-1]}
        encoded = value.encode()
        spellings |= {base64.b64encode(encoded).decode(), base64.urlsafe_b64encode(encoded).decode()}
        found = {spelling: reference for spelling in spellings if len(spelling) >= SHORTEST}
        # The longest first, so that a part never hides the whole.
        self._spellings = dict(sorted((self._spellings | found).items(), key=lambda item: -len(item[0])))
