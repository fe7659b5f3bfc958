"""The operations on evidence: bills of the live and of other revisions, and what is not known."""

from chimera.testing.definitions import definition
from tests.integration.control_plane.conftest import Client


async def test_the_bill_of_the_live_and_of_an_earlier_revision(client: Client) -> None:
    for version in ("1.0.0", "1.0.1"):
        item = {"definition": definition("anna", metadata={"version": version})}
        await client.ask("POST", "apply", {"items": [item]})
    revisions = (await client.ask("GET", "agents/anna/revisions")).json["revisions"]
    live = await client.ask("GET", "agents/anna/sbom")
    assert live.status == 200 and live.headers["Content-Type"] == "application/vnd.cyclonedx+json"
    assert live.json["metadata"]["component"]["version"] == "1.0.1"
    old = await client.ask("GET", f"agents/anna/sbom?revision={revisions[1]['revision']}")
    assert old.json["metadata"]["component"]["version"] == "1.0.0"
    assert (await client.ask("GET", "agents/anna/sbom")).body == live.body
    assert (await client.ask("GET", "agents/bert/sbom")).status == 404
    assert (await client.ask("GET", f"agents/bert/sbom?revision={revisions[1]['revision']}")).status == 404


async def test_what_was_applied_directly_has_no_provenance_and_says_what_has(client: Client) -> None:
    await client.ask("POST", "apply", {"items": [{"definition": definition("anna")}]})
    answer = await client.ask("GET", "agents/anna/provenance")
    assert (answer.status, answer.json["code"]) == (404, "evidence-missing")
    assert (await client.ask("GET", "/v1/provenance/keys")).json == {"keys": []}
    await client.evidence.look()
    [key] = (await client.ask("GET", "/v1/provenance/keys")).json["keys"]
    assert key.startswith("chimera-provenance-")
