"""The host's token: changed in time, kept where the platform doesn't answer."""

import asyncio
from pathlib import Path

import msgspec
import pytest

from chimera_host import renewal
from chimera_host.config import HostConfig
from chimera_host.contract.problem import ProblemError
from chimera_host.contract.token import FreshToken
from chimera_host.platform_client import PlatformClient
from chimera_host.testing.builders import document
from chimera_host.testing.platform import FakePlatform


async def test_a_renewed_token_is_shown_from_then_on() -> None:
    async with FakePlatform() as platform:
        client = PlatformClient(platform.url, platform.token)
        assert (await client.renew()).expires_in == platform.token_life
        platform.token = "another"  # the first one is good no more
        with pytest.raises(ProblemError, match="wrong platform token"):
            await client.renew()
        platform.token = "platform-token"
        assert (await client.renew()).expires_in == platform.token_life
        assert platform.renewals == 2
        await client.aclose()


def test_two_thirds_of_a_life_are_kept_in_hand() -> None:
    assert renewal.next_renewal(3_600.0) == 1_200.0
    assert renewal.next_renewal(1.0) == renewal.SOONEST
    assert renewal.next_renewal(1e9) == renewal.LATEST


class Platform:
    """Answers `renew` from a list, then never."""

    def __init__(self, *answers: float | ProblemError) -> None:
        self.answers = list(answers)
        self.asked = asyncio.Event()

    async def renew(self, identity: str | None = None) -> FreshToken:
        if not self.answers:
            self.asked.set()
            await asyncio.Event().wait()
        answer = self.answers.pop(0)
        if isinstance(answer, ProblemError):
            raise answer
        return FreshToken(token="t", expires_in=answer)


async def test_a_failure_is_tried_again_and_no_life_is_too_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(renewal, "AGAIN", 0.001)
    monkeypatch.setattr(renewal, "SOONEST", 0.001)
    platform = Platform(ProblemError("away"), 0.001, ProblemError("away"))
    task = asyncio.create_task(renewal.keep_fresh(platform, first=0.001))  # type: ignore[arg-type]
    async with asyncio.timeout(10):
        await platform.asked.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert platform.answers == []


async def test_a_pod_changes_its_identity_for_what_a_host_needs(tmp_path: Path) -> None:
    identity = tmp_path / "token"
    async with FakePlatform() as platform:
        config = HostConfig(
            host="pod-1",
            cell="?",
            framework="function",
            platform_url=platform.url,
            work_dir="w",
            identity_file=str(identity),
        )
        waiting = asyncio.create_task(renewal.introduced(config))
        await asyncio.sleep(0.2)  # neither the file nor the platform's knowledge is there yet
        assert not waiting.done()
        platform.identities["a-service-account"] = FreshToken(
            token=platform.token, expires_in=60.0, host="pod-1", cell="cell-7", host_key="the key"
        )
        identity.write_text("a-service-account\n")
        async with asyncio.timeout(20):
            known = await waiting
        assert (known.host, known.cell, known.platform_token, known.host_key) == (
            "pod-1",
            "cell-7",
            platform.token,
            "the key",
        )


async def test_a_pod_whose_token_is_taken_no_more_shows_its_identity_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(renewal, "AGAIN", 0.001)
    identity = tmp_path / "token"
    identity.write_text("a-service-account")
    async with FakePlatform() as platform:
        platform.identities["a-service-account"] = FreshToken(token=platform.token, expires_in=60.0)
        client = PlatformClient(platform.url, "a token of before")
        keeping = asyncio.create_task(renewal.keep_fresh(client, str(identity), first=0.001))
        platform.documents["sha256:" + "a" * 64] = msgspec.json.encode(document("agent"))
        async with asyncio.timeout(20):
            while True:
                try:
                    assert (await client.revision("sha256:" + "a" * 64)).name == "agent"
                    break
                except ProblemError:
                    await asyncio.sleep(0.01)
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
        await client.aclose()


async def test_what_a_call_asks_goes_to_the_gateway_that_made_it() -> None:
    async with FakePlatform() as one, FakePlatform() as other:
        client = PlatformClient(one.url, one.token)
        client.at("call-2", other.url)
        for call in ("call-1", "call-2"):
            await client.chat(call, {"messages": [{"role": "user", "content": call}]}, 10.0)
        client.at("call-2", None)
        await client.chat("call-2", {"messages": [{"role": "user", "content": "late"}]}, 10.0)
        assert [chat.call for chat in one.chats] == ["call-1", "call-2"]
        assert [chat.call for chat in other.chats] == ["call-2"]
        await client.aclose()
