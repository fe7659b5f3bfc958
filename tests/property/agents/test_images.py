"""Names of images: what the grammar makes is taken apart as it was made, by the schema's pattern and by the parser."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chimera.adapters.substrates.knative.resources.structural import structural
from chimera.agents.images import IMAGE_PATTERN, LONGEST_NAME, parse_image
from chimera.testing.definitions import compiled

PATTERN = re.compile(IMAGE_PATTERN)

words = st.from_regex(r"[a-z0-9]{1,6}", fullmatch=True)
separators = st.sampled_from([".", "_", "__", "-", "---"])
labels = st.from_regex(r"[a-zA-Z0-9]([a-zA-Z0-9-]{0,5}[a-zA-Z0-9])?", fullmatch=True)
ports = st.one_of(st.just(""), st.integers(0, 65_535).map(lambda port: f":{port}"))
named = st.one_of(
    st.lists(labels, min_size=2, max_size=4).map(".".join),
    st.just("localhost"),
    st.just("127.0.0.1"),
    st.just("[::1]"),
    st.just("[fd00:12::a]"),
)
hosts = st.one_of(
    st.none(),
    st.builds(str.__add__, named, ports),
    st.builds("{}:{}".format, labels, st.integers(0, 65_535)),
)
parts = st.builds(
    lambda first, more: first + "".join(separator + word for separator, word in more),
    words,
    st.lists(st.tuples(separators, words), max_size=2),
)
paths = st.lists(parts, min_size=1, max_size=4).filter(lambda parts: not _is_host(parts)).map("/".join)
tags = st.one_of(st.none(), st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", fullmatch=True))
digests = st.one_of(st.none(), st.from_regex(r"sha256:[0-9a-f]{64}", fullmatch=True))


def _is_host(parts: list[str]) -> bool:
    """Whether a path without a host before it would be read as one with."""
    return len(parts) > 1 and ("." in parts[0] or parts[0] == "localhost")


@given(hosts, paths, tags, digests)
def test_what_the_grammar_makes_is_taken_apart_as_it_was_made(
    host: str | None, path: str, tag: str | None, digest: str | None
) -> None:
    name = path if host is None else f"{host}/{path}"
    text = name + (f":{tag}" if tag else "") + (f"@{digest}" if digest else "")
    assert PATTERN.fullmatch(text)
    found = parse_image(text)
    assert found is not None
    assert (found.host, found.path, found.tag, found.digest) == (host, path, tag, digest)
    assert found.repository == name


@given(st.text(st.sampled_from("aZ0.:/@_-[]% "), max_size=24))
def test_the_pattern_and_the_parser_agree_on_any_text(text: str) -> None:
    assert (PATTERN.fullmatch(text) is None) == (parse_image(text) is None)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/agent",
        "team/",
        "a//b",
        "Agent",
        "Team/agent",
        "my_registry.example/agent",
        "registry.example:/agent",
        "registry.example:port/agent",
        "registry.example:5000/Team/agent",
        "-registry.example/agent",
        "a/b:1:2",
        "agent:" + "t" * 129,
        "agent@sha256:" + "A" * 64,
        "agent@sha256:12",
        "agent\n",
        "http://registry.example/agent",
    ],
)
def test_what_is_no_name_is_refused(text: str) -> None:
    assert parse_image(text) is None
    assert PATTERN.fullmatch(text) is None


def test_clusters_check_the_pattern_too() -> None:
    assert structural({"$defs": {"R": {"type": "string", "pattern": IMAGE_PATTERN}}}, "R")["pattern"] == IMAGE_PATTERN


def test_a_definition_names_an_image_of_a_registry_with_a_port() -> None:
    image = "registry.example:5000/team/agent:1.2"
    assert compiled("anna", specification={"framework": "function", "runtime": image}).value.runtime == image
    assert parse_image("a" * LONGEST_NAME) is not None
    assert parse_image("a" * (LONGEST_NAME + 1)) is None
