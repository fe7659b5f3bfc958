"""Which addresses may be called."""

import pytest

from chimera.adapters.push.addresses import may_call, networks
from chimera.adapters.push.pusher import MOST_URL, fault_of_url, outcome_of

INNER = (
    *("127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0"),
    *("224.0.0.1", "255.255.255.255", "240.0.0.1", "192.0.2.1", "::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1"),
    *("ff02::1", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "2002:7f00:1::", "64:ff9b::7f00:1", "64:ff9b::a00:1"),
    *("2001:0:7f00:1::", "::127.0.0.1", "not an address", ""),
)


@pytest.mark.parametrize("address", INNER)
def test_what_is_not_public_is_not_called(address: str) -> None:
    assert not may_call(address, (), encrypted=True)


@pytest.mark.parametrize("address", ["93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c"])
def test_what_is_public_is_called_by_https_alone(address: str) -> None:
    assert may_call(address, (), encrypted=True)
    assert not may_call(address, (), encrypted=False)


def test_a_named_network_may_be_called_and_no_other() -> None:
    allowed = networks(["10.1.0.0/16", "fd00::/8"])

    assert may_call("10.1.2.3", allowed, encrypted=False)
    assert may_call("::ffff:10.1.2.3", allowed, encrypted=False)
    assert may_call("fd00::1", allowed, encrypted=True)
    assert not may_call("10.2.0.1", allowed, encrypted=True)


def test_what_is_no_network_is_refused() -> None:
    with pytest.raises(ValueError, match="host bits"):
        networks(["10.1.0.1/16"])


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("ftp://a.example/", "https"),
        ("https:///x", "no host"),
        ("https://user:pw@a.example/", "no password"),
        ("https://a.example/#x", "after #"),
        ("https://a.example/a b", "%XX"),
        ("https://a.example:99999/", "can't be read"),
        ("https://a.example/" + "x" * MOST_URL, "longer"),
    ],
)
def test_a_wrong_address_is_said_to_be_one(url: str, what: str) -> None:
    assert what in (fault_of_url(url) or "")


def test_a_right_address_has_no_fault() -> None:
    assert fault_of_url("https://hooks.example.com:8443/in?x=1") is None


def test_how_long_to_wait_is_bounded_and_may_be_nonsense() -> None:
    assert outcome_of(429, "7").retry_after == 7
    assert outcome_of(503, "999999999").retry_after == 86_400
    assert outcome_of(503, "tomorrow").retry_after is None
