"""The way of definitions into the catalogue, over HTTP."""

import io
import tarfile
from typing import Any

import pytest
import yaml

from chimera.agents.archive import ArchivedFile
from chimera.agents.bundle import pack_files
from chimera.agents.catalogue import source_digest
from chimera.gateway.identity.principal import encode_header, named_user
from chimera.testing.definitions import definition, fleet

ME = encode_header(named_user("me", "default"))

CODE = {"specification": {"source": "./code", "entrypoint": "main:make"}}


def item(data: dict[str, Any], *, as_text: bool = False, **more: Any) -> dict[str, Any]:
    text = yaml.safe_dump(data)
    content = {"text": text} if as_text else {"definition": data}
    return {"source": source_digest(text.encode()), "file": f"{data['metadata']['name']}.yaml", **content, **more}


async def test_a_fleet_is_applied_in_chunks_and_found_unchanged(client: Any) -> None:
    items = [item(data, as_text=number % 2 == 0) for number, data in enumerate(fleet(250))]
    sources = [one["source"] for one in items]
    checked = (await client.ask("POST", "check", {"sources": sources})).json
    assert checked == {"live": {}, "sequence": 0}

    opened = await client.ask("POST", "batches")
    assert opened.status == 201
    batch = opened.json["batch"]
    for first in range(0, 250, 100):
        chunk = {"items": items[first : first + 100], "first": first}
        answer = await client.ask("POST", f"batches/{batch}/definitions", chunk)
        assert (answer.status, answer.json) == (200, {"results": []})
    assert client.changes == 0
    done = await client.ask("POST", f"batches/{batch}/commit", {"expect": 0})

    assert (done.status, done.headers["Chimera-Sequence"]) == (200, "250")
    assert (done.json["created"], done.json["refused"]) == (250, 0)
    assert client.changes == 1
    checked = (await client.ask("POST", "check", {"sources": sources})).json
    assert (len(checked["live"]), checked["sequence"]) == (250, 250)
    assert checked["live"][sources[0]] == "agent-00000"


async def test_text_and_data_of_the_same_definition_are_the_same_revision(client: Any) -> None:
    data = definition("anna")
    results = []
    for as_text in (True, False):
        body = {"items": [item(data, as_text=as_text)]}
        results.append((await client.ask("POST", "validate", body)).json["results"][0]["revision"])
    assert results[0] == results[1]


@pytest.mark.parametrize("as_text", [True, False])
async def test_a_nul_character_is_refused_of_text_and_of_data(client: Any, as_text: bool) -> None:
    nul = item(
        definition("anna", metadata={"description": "a\0b"}, capabilities={"primary_functions": ["run", "\0"]}),
        as_text=as_text,
    )
    (told,) = (await client.ask("POST", "validate", {"items": [nul]})).json["results"]
    assert {(fault["file"], fault["message"]) for fault in told["faults"]} == {("anna.yaml", "a NUL character")}
    if as_text:
        assert told["faults"][0]["line"] > 1
    else:
        places = [fault["path"] for fault in told["faults"]]
        assert places == ["metadata.description", "capabilities.primary_functions[1]"]
    assert (await client.ask("POST", "apply", {"items": [nul]})).status == 422


async def test_text_that_only_looks_like_an_escaped_nul_is_kept(client: Any) -> None:
    spelt = item(definition("anna", metadata={"description": r"writes \u0000"}))
    assert (await client.ask("POST", "apply", {"items": [spelt]})).json["created"] == 1


async def test_faults_come_with_file_path_and_place_and_stop_the_batch(client: Any) -> None:
    bad = item(definition("bert", specification={"framework": "AutoGem"}), as_text=True)
    batch = (await client.ask("POST", "batches")).json["batch"]
    chunk = {"items": [item(definition("anna")), bad]}

    (told,) = (await client.ask("POST", f"batches/{batch}/definitions", chunk)).json["results"]

    (fault,) = told["faults"]
    assert (told["position"], fault["file"], fault["path"]) == (1, "bert.yaml", "specification.framework")
    assert fault["line"] > 1
    assert fault["suggestion"] == "AutoGen"
    refused = await client.ask("POST", f"batches/{batch}/commit")
    assert (refused.status, refused.json["code"]) == (422, "batch-has-faults")
    assert refused.headers["Content-Type"].startswith("application/problem+json")
    done = (await client.ask("POST", f"batches/{batch}/commit", {"keep_going": True})).json
    assert (done["created"], done["refused"]) == (1, 1)


async def test_opening_again_with_the_same_key_finds_the_batch(client: Any) -> None:
    first = await client.ask("POST", "batches", Idempotency_Key="a")
    again = await client.ask("POST", "batches", Idempotency_Key="a")
    assert first.json == again.json
    assert (await client.ask("POST", "batches", Idempotency_Key="k" * 129)).status == 400


async def test_a_small_apply_is_one_request(client: Any) -> None:
    body = {"items": [item(definition("anna")), item(definition("bert"))]}
    done = await client.ask("POST", "apply", body, Chimera_Principal=ME)
    assert (done.status, done.headers["Chimera-Sequence"], done.json["created"]) == (200, "2", 2)

    history = (await client.ask("GET", "agents/anna/revisions")).json["revisions"]
    assert [(entry["version"], entry["by"]) for entry in history] == [("1.0.0", "user:me")]

    late = {"items": [item(definition("anna", metadata={"version": "2.0.0"}))], "expect": 0}
    assert (await client.ask("POST", "apply", late)).json["code"] == "changed-meanwhile"


async def test_a_small_apply_with_faults_changes_nothing_and_names_them(client: Any) -> None:
    body = {"items": [item(definition("anna")), item(definition("B"))]}

    refused = await client.ask("POST", "apply", body)

    assert (refused.status, refused.json["code"]) == (422, "batch-has-faults")
    assert [fault["path"] for fault in refused.json["errors"]] == ["metadata.name"]
    assert (await client.ask("GET", "/v1/status")).json["open_batches"] == 0
    done = (await client.ask("POST", "apply", {**body, "keep_going": True})).json
    assert (done["created"], done["refused"], len(done["results"])) == (1, 1, 1)


async def test_names_that_stand_twice_are_refused(client: Any) -> None:
    body = {"items": [item(definition("anna")), item(definition("anna", metadata={"description": "x"}))]}
    refused = await client.ask("POST", "apply", body)
    assert (refused.status, refused.json["code"]) == (409, "duplicate-name")


async def test_a_definition_with_code_needs_its_bundle(client: Any) -> None:
    packed = pack_files({"main.py": ArchivedFile(data=b"def make(): ...\n", executable=False)}, name="code")
    data = definition("anna", **CODE)
    without = await client.ask("POST", "apply", {"items": [item(data)]})
    named_only = await client.ask("POST", "apply", {"items": [item(data, bundle=packed.digest)]})
    for refused in (without, named_only):
        assert (refused.status, refused.json["errors"][0]["path"]) == (422, "specification.source")

    for _ in range(2):
        kept = await client.ask("PUT", f"bundles/{packed.digest}", packed.data)
        assert (kept.status, kept.json) == (201, {"digest": packed.digest, "requirements": None})
    wrong = {**data, "specification": {**data["specification"], "entrypoint": "mian:make"}}
    refused = await client.ask("POST", "apply", {"items": [item(wrong, bundle=packed.digest)]})
    assert (refused.status, refused.json["errors"][0]["suggestion"]) == (422, "main:make")
    done = await client.ask("POST", "apply", {"items": [item(data, bundle=packed.digest)]})

    assert done.json["created"] == 1
    described = (await client.ask("GET", "agents/anna")).json
    assert described["definition"]["agent"]["source"]["bundle"] == packed.digest
    assert any("runs as the user who runs Chimera" in note for note in described["notes"])


def _tar(*entries: tarfile.TarInfo) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w:gz") as archive:
        for entry in entries:
            archive.addfile(entry, io.BytesIO(b"x" * entry.size))
    return target.getvalue()


def _link() -> tarfile.TarInfo:
    entry = tarfile.TarInfo("main.py")
    entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
    return entry


@pytest.mark.parametrize(
    "data", [b"", b"no archive", _tar(_link()), _tar(tarfile.TarInfo("../main.py")), _tar(tarfile.TarInfo("main.py"))]
)
async def test_a_bundle_that_is_not_what_its_digest_says_is_refused(client: Any, data: bytes) -> None:
    refused = await client.ask("PUT", f"bundles/sha256:{'0' * 64}", data)
    assert (refused.status, refused.json["code"]) == (422, "bad-archive")


async def test_validate_keeps_nothing(client: Any) -> None:
    body = {"items": [item(definition("anna")), item(definition("bert", specification={"runtime": "team/image:1"}))]}
    told = (await client.ask("POST", "validate", body)).json
    assert told["valid"] is True
    assert told["results"][0]["name"] == "anna"
    assert "Kubernetes" in told["results"][1]["warnings"][0]["message"]
    status = (await client.ask("GET", "/v1/status")).json
    assert (status["revisions"], status["agents"]) == (0, 0)


async def test_diff_looks_for_all_that_is_live_at_once(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    items = [item(definition(f"agent-{number}")) for number in range(9)]
    assert (await client.ask("POST", "apply", {"items": items[:6]})).status == 200
    for one in ("agent", "canonical", "compiled"):
        monkeypatch.setattr(client.catalogue, one, None)  # none is asked for by itself
    changed = item(definition("agent-0", metadata={"description": "Another."}))
    rows = (await client.ask("POST", "diff", {"items": [changed, *items[1:]]})).json["agents"]
    assert [row["state"] for row in rows] == ["changed", *["unchanged"] * 5, *["new"] * 3]


async def test_diff_tells_what_an_apply_would_change(client: Any) -> None:
    await client.ask("POST", "apply", {"items": [item(definition("anna")), item(definition("bert"))]})
    items = [
        item(definition("anna")),
        item(definition("bert", capabilities={"communication_protocols": ["http"]})),
        item(definition("carl")),
        item(definition("D")),
    ]

    rows = (await client.ask("POST", "diff", {"items": items})).json["agents"]

    assert [row["state"] for row in rows] == ["unchanged", "changed", "new", "invalid"]
    assert (rows[1]["kind"], rows[1]["version_fits"]) == ("breaking", False)
    assert "protocols" in [change["path"] for change in rows[1]["changes"]]
    assert rows[3]["faults"]
