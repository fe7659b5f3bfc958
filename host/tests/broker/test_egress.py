"""Where a tool may connect: the pure rule."""

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from chimera_host.broker.egress import Target, is_never_allowed, meanings, normal_host, parse_list, parse_pattern, show
from chimera_host.errors import ToolRefused

IPV4 = st.integers(0, 2**32 - 1).map(IPv4Address)
IPV6 = st.integers(0, 2**128 - 1).map(IPv6Address)
LABEL = st.from_regex(r"\A[a-z]([a-z0-9-]{0,10}[a-z0-9])?\Z")
NAME = st.lists(LABEL, min_size=2, max_size=4).map(".".join)
PUBLIC = ip_address("93.184.216.34")

FORBIDDEN = [
    "169.254.169.254",
    "169.254.0.1",
    "100.100.100.200",
    "192.0.0.192",
    "168.63.129.16",
    "0.0.0.0",
    "0.1.2.3",
    "224.0.0.1",
    "255.255.255.255",
    "::",
    "fe80::1",
    "fd00:ec2::254",
    "fd20:ce::254",
    "ff02::1",
]


def embeddings(address: IPv4Address) -> list[IPv6Address]:
    """Every IPv6 address that stands for this one."""
    number = int(address)
    return [
        IPv6Address((0xFFFF << 32) | number),
        IPv6Address(number),
        IPv6Address((0x2002 << 112) | (number << 80)),
        IPv6Address((0x64FF9B << 96) | number),
        IPv6Address((0x64FF9B0001 << 80) | number),
        IPv6Address((0x20010000 << 96) | (1 << 64) | (number ^ 0xFFFFFFFF)),
    ]


def allowed(patterns: list[str], url: str) -> bool:
    try:
        parse_list("t", patterns).target(URL(url))
    except ToolRefused:
        return False
    return True


def judged(patterns: list[str], host: str, address: object, port: int = 443) -> bool:
    try:
        parse_list("t", patterns).judge(Target("https", host, port), address)
    except ToolRefused:
        return False
    return True


@pytest.mark.parametrize("text", FORBIDDEN)
def test_forbidden_addresses_are_refused_even_where_they_are_listed(text):
    address = ip_address(text)
    shown = f"[{text}]" if address.version == 6 else text
    assert is_never_allowed(address)
    assert not judged([text], text, address)
    assert not allowed([text], f"http://{shown}/")
    with pytest.raises(ToolRefused, match="no tool may reach"):
        parse_list("t", [], implied=URL(f"http://{shown}/")).target(URL(f"http://{shown}/"))


@given(st.sampled_from([one for one in FORBIDDEN if "." in one]).map(IPv4Address))
def test_no_spelling_in_ipv6_lets_a_forbidden_address_through(address):
    for spelt in embeddings(address):
        if int(spelt) > 1:
            assert is_never_allowed(spelt), spelt


@given(IPV4, NAME)
def test_a_public_name_may_not_lead_to_a_private_address(address, name):
    if not address.is_global and not is_never_allowed(address):
        assert not judged([name, f"*.{name}"], name, address)
        assert judged([name, str(address)], name, address)


@given(IPV4, NAME)
def test_ipv6_spellings_are_judged_like_their_ipv4_address(address, name):
    if not judged([name], name, address):
        assert not any(judged([name], name, spelt) for spelt in embeddings(address))


@given(IPV4 | IPV6)
def test_an_unlisted_name_is_refused_whatever_its_address_is(address):
    assert not allowed(["example.com"], "http://other.example.org/")
    shown = f"[{address}]" if address.version == 6 else str(address)
    assert not allowed(["example.com"], f"http://{shown}/")


@pytest.mark.parametrize("name", ["localhost", "search", "db.internal", "printer.local", "tools.ns.svc", "a.home.arpa"])
def test_names_that_public_dns_cant_hold_may_be_private_when_listed_exactly(name):
    for address in ("127.0.0.1", "10.2.3.4", "::1", "fd12::1"):
        assert judged([name], name, ip_address(address))
        assert not judged(["*." + name], "x." + name, ip_address(address))
    assert not judged([name], name, ip_address("169.254.169.254"))


@pytest.mark.parametrize(
    ("pattern", "url", "holds"),
    [
        ("example.com", "https://example.com/x", True),
        ("example.com", "https://EXAMPLE.com./x", True),
        ("Example.Com", "https://example.com/x", True),
        ("example.com", "https://www.example.com/", False),
        ("example.com", "https://example.com.evil.org/", False),
        ("example.com", "https://notexample.com/", False),
        ("*.example.com", "https://www.example.com/", True),
        ("*.example.com", "https://a.b.example.com/", True),
        ("*.example.com", "https://example.com/", False),
        ("*.example.com", "https://evilexample.com/", False),
        ("example.com:8443", "https://example.com:8443/", True),
        ("example.com:8443", "https://example.com/", False),
        ("example.com:443", "https://example.com/", True),
        ("example.com", "https://example.com@evil.org/", False),
        ("example.com", "https://evil.org#@example.com/", False),
        ("example.com", "https://evil.org\\@example.com/", False),
        ("example.com", "ftp://example.com/", False),
        ("example.com", "file:///etc/passwd", False),
        ("example.com", "//example.com/", False),
        ("example.com", "https://user:pass@example.com/", False),
        ("127.0.0.1", "http://127.0.0.1:9000/", True),
        ("127.0.0.1:9000", "http://127.0.0.1:9001/", False),
        ("127.0.0.1", "http://2130706433/", False),
        ("127.0.0.1", "http://0x7f.1/", False),
        ("127.0.0.1", "http://[::ffff:127.0.0.1]/", False),
        ("10.0.0.1", "http://10.0.0.1/", True),
        ("10.0.0.1", "http://10.0.0.2/", False),
    ],
)
def test_names_and_ports(pattern, url, holds):
    try:
        parsed = URL(url)
    except ValueError:
        assert not holds
        return
    try:
        parse_list("t", [pattern]).target(parsed)
    except ToolRefused:
        assert not holds
    else:
        assert holds


def test_a_servers_own_host_is_implied_with_its_port():
    listed = parse_list("t", [], implied=URL("http://127.0.0.1:9000/mcp"))
    assert listed.target(URL("http://127.0.0.1:9000/other")) == Target("http", "127.0.0.1", 9000)
    with pytest.raises(ToolRefused, match=r"may not connect to 127.0.0.1:9001 \(it may to: 127.0.0.1:9000\)"):
        listed.target(URL("http://127.0.0.1:9001/mcp"))


@given(NAME, st.booleans(), st.none() | st.integers(1, 65535))
def test_a_pattern_is_read_as_it_is_written(host, wildcard, port):
    text = f"{'*.' if wildcard else ''}{host}{f':{port}' if port else ''}"
    assert show(parse_pattern(text)) == text


@given(IPV6)
def test_an_address_has_one_spelling(address):
    assert normal_host(f"[{address.exploded.upper()}]") == str(address)
    assert address in list(meanings(address))


def test_a_public_address_of_a_listed_name_is_fine():
    assert judged(["example.com"], "example.com", PUBLIC) and judged(["*.com"], "example.com", PUBLIC)
