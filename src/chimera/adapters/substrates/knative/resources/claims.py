"""Whose the resources of a namespace are where a cluster has several installations: a pure rule.

A namespace says it by a label, `chimera.ecosystem/installation`, with the namespace of an installation. One that says
nothing is of the oldest installation, so that a second one changes nothing for the first. Each resource has exactly
one operator that speaks of it: that of its installation, or, where the label names one that isn't there, the oldest's.

Installations are known by their webhook's configuration, which each has, which nobody makes for another purpose, and
whose time says who was first. One whose own isn't there yet is the youngest.
"""

from collections.abc import Mapping
from enum import Enum

from chimera.adapters.substrates.knative import names
from chimera.adapters.substrates.knative.admission.manifests import configuration_name

CLAIM = names.PREFIX + "installation"
_PREFIX = configuration_name("")


class Claim(Enum):
    """Whose a namespace is: ours, another installation's, or one's that isn't in the cluster, of which we tell."""

    OURS = "ours"
    THEIRS = "theirs"
    NOBODYS = "nobodys"


def installation_of(configuration: str) -> str | None:
    """The namespace of the installation whose webhook's configuration has this name; None for another's."""
    return configuration.removeprefix(_PREFIX) if configuration.startswith(_PREFIX) else None


def claim_of(claimed: str | None, installations: Mapping[str, str], own: str) -> Claim:
    """Whose a namespace is whose label says `claimed`; `installations` are those of the cluster, with their times."""
    oldest = _oldest(installations, own)
    holder = claimed or oldest
    if holder == own:
        return Claim.OURS
    if holder in installations or oldest != own:
        return Claim.THEIRS
    return Claim.NOBODYS


def not_here(namespace: str, claimed: str) -> str:
    """What to tell of a resource that nobody takes."""
    return (
        f"The namespace {namespace} is of the installation {claimed} by its label {CLAIM}, and this cluster has none "
        "of that name. Take the label away, or name an installation that is there."
    )


def _oldest(installations: Mapping[str, str], own: str) -> str:
    found = dict(installations)
    latest = max(found.values(), default="")
    return min({own: latest, **found}, key=lambda name: (found.get(name, latest), name not in found, name))
