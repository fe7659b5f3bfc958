"""Webhooks of Git's hosts at the public listener: a signed one has the source looked at, once; others learn nothing."""

import hashlib
import hmac
from collections.abc import Callable
from typing import Any

import aiohttp

from chimera.adapters.storage.catalogue import Catalogue
from chimera.adapters.storage.sources import SourceStorage
from chimera.delivery.git.sources import SourceSpec

KEY = "a key that both sides know"


def signature(body: bytes, key: str = KEY) -> dict[str, str]:
    return {"X-Hub-Signature-256": "sha256=" + hmac.new(key.encode(), body, hashlib.sha256).hexdigest()}


def gitlab(name: str, key: str = KEY, event: str = "Push Hook") -> dict[str, str]:
    return {"X-Gitlab-Token": key, "X-Gitlab-Event": event, "X-Gitlab-Event-UUID": name}


async def test_a_signed_webhook_has_the_source_looked_at_once(make_world: Callable[..., Any]) -> None:
    async with make_world() as world:
        folder = world.folder / "secrets"
        folder.mkdir(exist_ok=True)
        (folder / "git_default_hook").write_text(KEY)
        (folder / "git_default_hook").chmod(0o600)
        sources = SourceStorage(world.database, Catalogue(world.database, max_hosts=1))
        spec = SourceSpec(url="https://git.example.com/x", webhook="secret:git_default_hook", interval=86_400.0)
        made = await sources.put("default", "catalogue", spec, "key:tests")
        await sources.put("default", "silent", SourceSpec(url="https://git.example.com/x"), "key:tests")

        async def ask(source: str, body: bytes, headers: dict[str, str]) -> tuple[int, str]:
            url = f"{world.gateway.public_url}/v1/tenants/default/sources/{source}/hook"
            async with aiohttp.ClientSession() as session, session.post(url, data=body, headers=headers) as answer:
                return answer.status, (await answer.json()).get("detail", "")

        body = b'{"ref": "refs/heads/main", "after": "1"}'
        refused = [
            await ask("catalogue", body, {}),
            await ask("catalogue", body, signature(body, "another key of somebody")),
            await ask("catalogue", body + b" ", signature(body)),
            await ask("silent", body, signature(body)),
            await ask("missing", body, signature(body)),
        ]
        assert {status for status, _ in refused} == {401}
        assert len(set(refused)) == 1
        assert (await sources.get("default", "catalogue")).due == made.due  # type: ignore[union-attr]
        assert await ask("catalogue", body, signature(body)) == (202, "")
        due = (await sources.get("default", "catalogue")).due  # type: ignore[union-attr]
        assert due > made.due
        status, detail = await ask("catalogue", body, signature(body))
        assert (status, detail) == (401, "this webhook was taken before")
        assert (await sources.get("default", "catalogue")).due == due  # type: ignore[union-attr]
        other = b'{"after": "2"}'
        assert (await ask("catalogue", other, signature(other)))[0] == 202

        before = (await sources.get("default", "catalogue")).due  # type: ignore[union-attr]
        assert await ask("catalogue", body, gitlab("a", "another key of somebody")) == refused[0]
        assert await ask("catalogue", body, gitlab("a", event="Issue Hook")) == (202, "")
        assert (await sources.get("default", "catalogue")).due == before  # type: ignore[union-attr]
        assert await ask("catalogue", body, gitlab("a")) == (202, "")
        after = (await sources.get("default", "catalogue")).due  # type: ignore[union-attr]
        assert after > before
        assert (await ask("catalogue", body, gitlab("a")))[0] == 401
        assert (await sources.get("default", "catalogue")).due == after  # type: ignore[union-attr]
        assert (await ask("catalogue", body, gitlab("b")))[0] == 202
