"""Which repositories may be followed, which webhooks are taken, and what becomes of a commit's agents."""

import base64
import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chimera.delivery.git.addresses import check_address
from chimera.delivery.git.errors import AddressRefused, HookRefused
from chimera.delivery.git.hooks import GITLAB_EVENT, GITLAB_NAME, GITLAB_TOKEN, HUB, tells_of_push, verified
from chimera.delivery.git.ports import Row
from chimera.delivery.git.rules import FEW, next_look, plan, removal_problem
from chimera.delivery.git.settings import SyncSettings
from chimera.delivery.git.sources import SourceSpec, faults_of
from chimera.events.signing import signed

SETTINGS = SyncSettings(
    hosts=("git.example.com", "git.example.com:8443", "old.example.com"),
    insecure_hosts=("old.example.com",),
    folders=("/srv/git",),
)


@pytest.mark.parametrize(
    "url",
    [
        "https://git.example.com/team/catalogue.git",
        "https://GIT.example.com/x",
        "https://git.example.com:8443/x",
        "http://old.example.com/x",
        "file:///srv/git/catalogue.git",
        "file://localhost/srv/git/a%20b",
    ],
)
def test_what_is_allowed_may_be_followed(url: str) -> None:
    found = check_address(url, SETTINGS)
    assert (found.folder is not None) == url.startswith("file:")


@pytest.mark.parametrize(
    "url",
    [
        "https://elsewhere.example.com/x",
        "https://git.example.com:9999/x",
        "http://git.example.com/x",
        "https://git.example.com.evil.example/x",
        "https://user:secret@git.example.com/x",
        "https://git.example.com@evil.example/x",
        "https://git.example.com\\@evil.example/x",
        "https://git.example.com/x?y",
        "https://[::1]/x",
        "https://127.0.0.1/x",
        "https:///x",
        "https://git.example.com:port/x",
        "ssh://git.example.com/x",
        "ssh://-oProxyCommand=touch%20x/x",
        "git@git.example.com:x",
        "-oProxyCommand=x",
        "ext::sh -c touch% x",
        "git://git.example.com/x",
        "file:///etc",
        "file:///srv/git/../../etc",
        "file:///srv/git/%2e%2e/%2e%2e/etc",
        "file:///srv/gitolite/x",
        "file://other/srv/git/x",
        "/srv/git/x",
        "../x",
        "https://git.example.com/x\ny",
        "https://git.exämple.com/x",
        "",
    ],
)
def test_nothing_else_may_be_followed(url: str) -> None:
    with pytest.raises(AddressRefused) as caught:
        check_address(url, SETTINGS)
    assert "secret" not in caught.value.detail
    assert caught.value.next_step


def test_by_default_nothing_may_be_followed() -> None:
    for url in ("https://github.com/x/y", "file:///srv/git/x"):
        with pytest.raises(AddressRefused):
            check_address(url, SyncSettings())


def test_a_source_uses_secrets_of_its_tenant() -> None:
    good = SourceSpec(url="x", credential="secret:git_blue_token", webhook="secret:git_blue_hook")
    assert not faults_of(good, "blue")
    assert len(faults_of(good, "red")) == 2
    assert faults_of(SourceSpec(url="x", branch="a..b", path="../x"), "red")


KEY = "a key of the webhook that is long"
BODY = b'{"after": "1"}'


def hub(body: bytes, key: str = KEY) -> dict[str, str]:
    return {HUB: "sha256=" + hmac.new(key.encode(), body, hashlib.sha256).hexdigest()}


def test_a_signed_webhook_is_taken() -> None:
    assert verified(hub(BODY), BODY, KEY, 1000.0) != verified(hub(b"{}"), b"{}", KEY, 1000.0)
    assert verified(signed([KEY.encode()], "msg_1", 1000.0, BODY), BODY, KEY, 1200.0)
    shown = "whsec_" + base64.b64encode(b"k" * 32).decode()
    assert verified(signed([b"k" * 32], "msg_1", 1000.0, BODY), BODY, shown, 1000.0)


def gitlab(name: str = "1c9a", key: str = KEY, event: str = "Push Hook") -> dict[str, str]:
    return {GITLAB_TOKEN: key, GITLAB_EVENT: event, GITLAB_NAME: name}


def test_a_webhook_of_gitlab_is_taken_by_its_token_and_named_by_its_event() -> None:
    first = verified(gitlab(), BODY, KEY, 1000.0)
    assert first == verified(gitlab(), BODY, KEY, 2000.0), "sent again, it has the same name"
    others = {verified(gitlab("2d0b"), BODY, KEY, 1000.0), verified(gitlab(), b"{}", KEY, 1000.0)}
    assert len({first, *others}) == 3
    assert verified({GITLAB_TOKEN: KEY}, BODY, KEY, 1000.0), "old releases name no event"
    assert KEY not in first
    assert tells_of_push(gitlab()) and tells_of_push(hub(BODY))
    assert not tells_of_push(gitlab(event="Issue Hook"))


@pytest.mark.parametrize(
    ("headers", "key"),
    [
        ({}, KEY),
        (gitlab(key=""), KEY),
        (gitlab(key="another key of the webhook"), KEY),
        (gitlab(key="é"), KEY),
        (gitlab(key="short"), "short"),
        ({GITLAB_EVENT: "Push Hook"}, KEY),
        ({**gitlab(), **hub(BODY, "another key of the webhook")}, KEY),
        (hub(b"other"), KEY),
        (hub(BODY, "another key of the webhook"), KEY),
        ({HUB: "sha1=x"}, KEY),
        ({HUB: "sha256=é"}, KEY),
        (hub(BODY, "short"), "short"),
        (signed([KEY.encode()], "msg_1", 1.0, BODY), KEY),
        (signed([KEY.encode()], "msg_1", 5_000.0, BODY), KEY),
        (signed([b"x" * 32], "msg_1", 1000.0, BODY), KEY),
        ({**signed([KEY.encode()], "msg_1", 1000.0, BODY), "webhook-id": "msg_2"}, KEY),
        ({**signed([KEY.encode()], "msg_1", 1000.0, BODY), "webhook-timestamp": "x"}, KEY),
    ],
)
def test_any_other_webhook_is_refused(headers: dict[str, str], key: str) -> None:
    with pytest.raises(HookRefused):
        verified(headers, BODY, key, 1000.0)


names = st.sampled_from(["a", "b", "c", "d"])
files = st.sampled_from(["x.yaml", "y.yaml", "z.yaml"])
rows = st.lists(st.tuples(names, files), max_size=6).map(
    lambda pairs: [Row(agent=agent, file=file, number=0, revision="r", folder=None) for agent, file in pairs]
)


@given(
    before=rows,
    after=rows,
    holders=st.dictionaries(names, st.tuples(st.sampled_from(["mine", "other"]), files), max_size=4),
)
def test_a_plan_leaves_each_agent_to_one_file(
    before: list[Row], after: list[Row], holders: dict[str, tuple[str, str]]
) -> None:
    found = plan("mine", before, after, holders)
    agents = {row.agent for row in after}
    assert set(found.gone) == {row.agent for row in before} - agents
    if found.twice:
        return
    assert len(agents) == len(after)
    touched = {row.file for row in (*before, *after)}
    for row in after:
        source, file = holders.get(row.agent, ("mine", row.file))
        assert source == "mine" and file in touched


@given(gone=st.integers(0, 500), agents=st.integers(0, 500), count=st.integers(0, 200), share=st.floats(0, 1))
def test_no_removal_beyond_its_limit_passes(gone: int, agents: int, count: int, share: float) -> None:
    spec = SourceSpec(url="x", prune_count=count, prune_share=share)
    passes = not removal_problem(spec, gone, agents)
    assert passes == (gone <= count and (gone <= FEW or gone <= share * agents))


@given(interval=st.floats(5, 86_400), failures=st.integers(0, 10_000), longest=st.floats(1, 86_400))
def test_a_look_comes_no_sooner_than_asked_and_no_later_than_bounded(
    interval: float, failures: int, longest: float
) -> None:
    due = next_look(SourceSpec(url="x", interval=interval), failures, 0.0, longest)
    assert interval <= due <= max(interval, longest)
