"""Whose a namespace is: one operator takes it or tells of it, whatever installations there are, and a second changes
nothing for the first."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chimera.adapters.substrates.knative.admission.manifests import configuration_name
from chimera.adapters.substrates.knative.resources.claims import Claim, claim_of, installation_of

NAMES = st.sampled_from(["alpha", "beta", "gamma", "delta"])
TIMES = st.sampled_from(["2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z", "2026-01-03T00:00:00Z"])
INSTALLATIONS = st.dictionaries(NAMES, TIMES, min_size=1)


@given(INSTALLATIONS, st.none() | NAMES | st.just(""))
def test_exactly_one_installation_answers_for_a_namespace(installations: dict[str, str], claimed: str | None) -> None:
    answers = {own: claim_of(claimed, installations, own) for own in installations}
    assert sum(one is not Claim.THEIRS for one in answers.values()) == 1
    if claimed in installations:
        assert answers[claimed or ""] is Claim.OURS
    elif claimed:
        assert Claim.OURS not in answers.values() and Claim.NOBODYS in answers.values()
    else:
        assert Claim.OURS in answers.values()


@given(INSTALLATIONS, NAMES, st.none() | NAMES)
def test_one_that_comes_later_takes_nothing_that_does_not_name_it(
    installations: dict[str, str], late: str, claimed: str | None
) -> None:
    if late in installations:
        return
    both = {**installations, late: "2026-02-01T00:00:00Z"}
    for own in installations:
        before, after = claim_of(claimed, installations, own), claim_of(claimed, both, own)
        assert after is before or (claimed == late and after is Claim.THEIRS)
    assert claim_of(claimed, both, late) is (Claim.OURS if claimed == late else Claim.THEIRS)
    # While its own configuration isn't there yet, too: it is applied last.
    assert claim_of(claimed, installations, late) is (Claim.OURS if claimed == late else Claim.THEIRS)


@given(NAMES, st.none() | st.just(""))
def test_one_that_is_alone_has_all_that_says_nothing(own: str, claimed: str | None) -> None:
    assert claim_of(claimed, {}, own) is claim_of(claimed, {own: "2026-01-01T00:00:00Z"}, own) is Claim.OURS
    assert claim_of("elsewhere", {}, own) is Claim.NOBODYS


@pytest.mark.parametrize("namespace", ["chimera", "platform", "a.b"])
def test_an_installation_is_known_by_its_webhooks_configuration(namespace: str) -> None:
    assert installation_of(configuration_name(namespace)) == namespace
    assert installation_of("istio-validator") is None
