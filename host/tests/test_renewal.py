"""The host's token: changed in time, kept where the platform doesn't answer."""

import asyncio

import pytest

from chimera_host import renewal
from chimera_host.contract.problem import ProblemError
from chimera_host.platform_client import PlatformClient
from chimera_host.testing.platform import FakePlatform


async def test_a_renewed_token_is_shown_from_then_on() -> None:
    async with FakePlatform() as platform:
        client = PlatformClient(platform.url, platform.token)
        assert await client.renew() == platform.token_life
        platform.token = "another"  # the first one is good no more
        with pytest.raises(ProblemError, match="wrong platform token"):
            await client.renew()
        platform.token = "platform-token"
        assert await client.renew() == platform.token_life
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

    async def renew(self) -> float:
        if not self.answers:
            self.asked.set()
            await asyncio.Event().wait()
        answer = self.answers.pop(0)
        if isinstance(answer, ProblemError):
            raise answer
        return answer


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
