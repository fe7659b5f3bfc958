"""Versions are ordered as the ecosystem's own tool orders them."""

import itertools
import shutil
import subprocess

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from packaging.version import InvalidVersion, Version

from chimera.agents import quantities
from chimera.delivery.scanning.versions import alpine, debian, normal_name, pep440, scheme, semver

NUMBER = st.integers(0, 12).map(str)
PEP440 = st.builds(
    "".join,
    st.tuples(
        st.sampled_from(["", "", "v", "1!", "0!"]),
        st.lists(NUMBER, min_size=1, max_size=4).map(".".join),
        st.sampled_from(["", "", "a1", ".beta.2", "-rc3", "_pre", "c4", "alpha", "preview-1", "rc01"]),
        st.sampled_from(["", "", ".post1", "-2", "post", ".rev3", "-r4", "_post_0"]),
        st.sampled_from(["", "", ".dev1", "dev", "-dev2", "_dev_3"]),
        st.sampled_from(["", "", "+local", "+1", "+ubuntu.1", "+2_a-3"]),
    ),
)


def packaged(text: str) -> Version | None:
    try:
        return Version(text)
    except InvalidVersion:
        return None


@given(PEP440, PEP440)
@settings(max_examples=500)
def test_pep_440_agrees_with_packaging(one: str, other: str) -> None:
    theirs, ours = (Version(one), Version(other)), (pep440(one), pep440(other))
    assert None not in ours
    assert (ours[0] < ours[1]) == (theirs[0] < theirs[1])
    assert (ours[0] == ours[1]) == (theirs[0] == theirs[1])


@given(st.text(alphabet="0123456789.abcdevrpost+-_!v ", max_size=12))
@settings(max_examples=500)
def test_pep_440_takes_what_packaging_takes(text: str) -> None:
    assert (pep440(text) is None) == (packaged(text) is None)


SEMVER = st.builds(
    "{}.{}.{}{}{}".format,
    NUMBER,
    NUMBER,
    NUMBER,
    st.sampled_from(["", "", "-alpha", "-alpha.1", "-alpha.beta", "-beta.2", "-beta.11", "-rc.1", "-0", "-1a", "--"]),
    st.sampled_from(["", "+build", "+1.2"]),
)


@given(SEMVER, SEMVER)
def test_semantic_versions_agree_with_those_of_agents(one: str, other: str) -> None:
    theirs = quantities.version(one).key(), quantities.version(other).key()
    assert (semver(one) < semver(other)) == (theirs[0] < theirs[1])
    assert (semver(one) == semver(other)) == (theirs[0] == theirs[1])


def test_the_order_of_the_standard_itself() -> None:
    texts = [
        f"1.0.0{end}" for end in ("-alpha", "-alpha.1", "-alpha.beta", "-beta", "-beta.2", "-beta.11", "-rc.1", "")
    ]
    assert sorted(reversed(texts), key=semver) == texts
    assert [semver(text) for text in ("1.0", "1.0.0.0", "01.0.0", "1.0.0-01", "x", "")] == [None] * 6


DEBIAN = st.builds(
    "{}{}{}".format,
    st.sampled_from(["", "", "0:", "1:", "2:"]),
    st.from_regex(r"[0-9][0-9a-z.+~]{0,7}", fullmatch=True),
    st.sampled_from(["", "-0", "-1", "-1~bpo1", "-1+deb12u1", "-0ubuntu0.1", "-a.b", "-1a"]),
)


@pytest.mark.skipif(shutil.which("dpkg") is None, reason="dpkg isn't here to ask")
def test_debian_agrees_with_dpkg() -> None:
    """A process for each pair, so the pairs are few and chosen; a shell runs them in one."""
    texts = (
        *("1.0", "1.0-0", "1.0-1", "1.0-1~bpo1", "1.0~rc1-1", "1:0.9", "1.0.0", "1.0a", "1.0+dfsg-1", "1.00-1", "010"),
        *(
            "1.0-1+deb12u1",
            "1.0-1ubuntu2",
            "1.0-1.1",
            "2~~",
            "2~~a",
            "2~",
            "2",
            "2a",
            "2+",
            "2.0-",
            "0:1.0",
            "1.0-0ubuntu0.1",
        ),
    )
    texts = tuple(text for text in texts if not text.endswith("-"))
    pairs = list(itertools.product(texts, texts))
    script = "\n".join(f"dpkg --compare-versions '{a}' lt '{b}' && echo 1 || echo 0" for a, b in pairs)
    said = subprocess.run(["sh"], input=script, capture_output=True, text=True, check=True).stdout.split()
    assert len(said) == len(pairs) > 400
    wrong = [(a, b) for (a, b), lower in zip(pairs, said, strict=True) if (debian(a) < debian(b)) != (lower == "1")]
    assert not wrong


@given(DEBIAN, DEBIAN, DEBIAN)
def test_debian_is_an_order(one: str, two: str, three: str) -> None:
    keys = [debian(text) for text in (one, two, three)]
    assume(None not in keys)
    first, second, third = sorted(keys)
    assert first <= second <= third and first <= third
    assert debian(one + "~") < debian(one) or "-" in one
    assert debian("a") is None and debian("1:2:x_") is None and debian("") is None


ALPINE_ORDER = [
    ("1.2.3", "<", "1.2.3-r0"),
    ("1.2.3-r0", "<", "1.2.3-r1"),
    ("1.2.3-r9", "<", "1.2.3-r10"),
    ("1.2.3_alpha", "<", "1.2.3_beta"),
    ("1.2.3_beta2", "<", "1.2.3_pre1"),
    ("1.2.3_pre", "<", "1.2.3_rc1"),
    ("1.2.3_rc4", "<", "1.2.3"),
    ("1.2.3", "<", "1.2.3_git20240101"),
    ("1.2.3_git1", "<", "1.2.3_p1"),
    ("1.2.3", "<", "1.2.3_p1"),
    ("1.2.3_p9-r0", "<", "1.2.3_p10-r0"),
    ("1.2.3", "<", "1.2.3a"),
    ("1.2.3a", "<", "1.2.3b"),
    ("1.2.3b", "<", "1.2.3b-r1"),
    ("1.2", "<", "1.2.0"),
    ("1.2_alpha", "<", "1.2"),
    ("1.2_alpha_pre1", "<", "1.2_alpha"),
    ("1.10", ">", "1.9"),
    ("1.01", "<", "1.1"),
    ("1.09", "<", "1.1"),
    ("013", "<", "014"),
    ("006", ">", "1.0.0"),
    ("1.0", "<", "1.0~deadbeef-r0"),
    ("20240101-r0", ">", "3.0-r9"),
    ("3.1.4-r5", "=", "3.1.4-r5"),
]


@pytest.mark.parametrize(("one", "sign", "other"), ALPINE_ORDER)
def test_alpine_orders_as_apk_does(one: str, sign: str, other: str) -> None:
    a, b = alpine(one), alpine(other)
    assert a is not None and b is not None
    assert {"<": a < b, ">": a > b, "=": a == b}[sign]
    assert sum((a < b, a == b, a > b)) == 1
    assert (a < b) == (b > a)


ALPINE = st.builds(
    "{}{}{}{}".format,
    st.lists(st.sampled_from(["0", "1", "01", "2", "10", "007"]), min_size=1, max_size=3).map(".".join),
    st.sampled_from(["", "", "a", "b"]),
    st.sampled_from(["", "", "_alpha", "_rc1", "_p2", "_git", "_alpha_pre1"]),
    st.sampled_from(["", "-r0", "-r1", "-r12"]),
)


@given(ALPINE, ALPINE)
def test_alpine_compares_every_two_one_way(one: str, other: str) -> None:
    a, b = alpine(one), alpine(other)
    assert sum((a < b, a == b, a > b)) == 1
    assert (a < b) == (b > a)


@pytest.mark.parametrize(
    "text", ["", "x", "1.0bc", "1.0_foo", "1.0-1", "1.0-r", "1..0", "1.0!", "1" * 300, "\u0967.\u0966"]
)
def test_what_is_no_version_has_no_order(text: str) -> None:
    assert alpine(text) is None


@given(st.text(max_size=40))
@settings(max_examples=300)
def test_any_text_is_a_version_or_none(text: str) -> None:
    for order in (pep440, semver, debian, alpine):
        key = order(text)
        assert key is None or key == order(text)


def test_ecosystems_have_the_orders_of_their_tools() -> None:
    assert scheme("PyPI") is pep440 and scheme("Debian:12") is debian and scheme("Alpine:v3.20") is alpine
    assert scheme("Ubuntu:24.04:LTS") is debian and scheme("npm") is semver
    assert scheme("Packagist") is None
    assert normal_name("PyPI", "Zope.Interface__x") == "zope-interface-x"
    assert normal_name("npm", "@Scope/Name") == "@Scope/Name"
