"""Lists in pages: each takes the parameters that the API's document names, and no others."""

import re
from typing import Any

import pytest

from chimera.entrypoints.gateway.operations import OPERATIONS

LISTS = {
    one.name: one
    for one in OPERATIONS
    if one.owner == "control-plane" and "limit" in {name for name, _, _ in one.query}
}


def test_there_are_lists() -> None:
    assert len(LISTS) >= 10


@pytest.mark.parametrize("name", LISTS)
async def test_a_parameter_that_the_document_does_not_name_is_refused(name: str, client: Any) -> None:
    """One that is misspelt would otherwise be passed over, and the list would hold what nobody asked for."""
    path = re.sub(r"\{(\w+)\}", lambda one: "default" if one[1] == "tenant" else "x-1", LISTS[name].path)
    for query in ("colour=red", "limit=5&stat=open", "limit=0", "limit=1001", "limit=many", "limit=%C2%B2"):
        refused = await client.ask("GET", f"{path}?{query}")
        assert (refused.status, refused.json["code"]) == (400, "invalid-request"), query
        assert refused.json["next_step"]
    empty, without = [(await client.ask("GET", f"{path}{query}")) for query in ("?after=", "")]
    assert (empty.status, empty.body) == (without.status, without.body), "nothing to go on after is the beginning"
    for parameter, _, _ in LISTS[name].query:
        assert parameter in (await client.ask("GET", f"{path}?colour=red")).json["next_step"]
