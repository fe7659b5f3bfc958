"""`chimera size`: what a cluster must have for so many agents and calls, and what that costs a month."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any, get_args

import click

from chimera.entrypoints.cli import output as out
from chimera.platform.sizing import LIST_PRICES, Demand, Measured, Prices, Size
from chimera.platform.sizing import size as reckoned

PODS = (("framework", "FRAMEWORK"), ("resources", "CLASS"), ("cells", "CELLS"), ("pods", "PODS"), ("decided_by", "BY"))
SHARE = click.FloatRange(0, 1)
POSITIVE = click.FloatRange(0, min_open=True)


def _mix(_: click.Context, __: click.Parameter, given: Sequence[str]) -> dict[Measured, float]:
    found: dict[Measured, float] = {}
    for text in given:
        name, separator, share = text.partition("=")
        known = next((one for one in get_args(Measured) if one == name), None)
        try:
            number = float(share) if separator else 1.0
        except ValueError:
            number = 0.0
        if known is None or not 0 < number < float("inf"):
            raise click.BadParameter(f"{text}: write NAME=SHARE, the name one of {', '.join(get_args(Measured))}")
        found[known] = number
    return found


def _prices(_: click.Context, __: click.Parameter, given: Sequence[str]) -> Prices:
    names = [name for name in Prices.__dataclass_fields__ if name != "source"]
    changed: dict[str, float] = {}
    for text in given:
        name, _separator, value = text.partition("=")
        try:
            changed[name] = float(value)
        except ValueError:
            changed[name] = -1.0
        if name not in names or not 0 <= changed[name] < float("inf"):
            raise click.BadParameter(f"{text}: write NAME=USD, the name one of {', '.join(names)}")
    if not changed:
        return LIST_PRICES
    said = f"given: {', '.join(sorted(changed))}; else {LIST_PRICES.source}"
    return replace(LIST_PRICES, **changed, source=said)


@click.command(epilog="Example: chimera size --agents 12000 --calls-per-second 100")
@click.option("--agents", type=click.IntRange(1), required=True, help="Agents that are live.")
@click.option("--calls-per-second", type=click.FloatRange(0), required=True, help="Their calls, in the mean.")
@click.option("--call-seconds", type=POSITIVE, default=2.0, show_default=True, help="How long a call takes.")
@click.option("--peak", type=click.FloatRange(1), default=2.0, show_default=True, help="Busiest hour over the mean.")
@click.option("--framework", "mix", multiple=True, callback=_mix, help="NAME=SHARE of agents; by default alike.")
@click.option("--tenants", type=click.IntRange(1), default=1, show_default=True, help="Tenants.")
@click.option("--large", type=SHARE, default=0.0, show_default=True, help="Share of agents of the class large.")
@click.option("--code-owners", type=click.IntRange(0), default=0, show_default=True, help="Teams that bring code.")
@click.option("--dedicated", type=click.IntRange(0), default=0, show_default=True, help="Agents alone in their cell.")
@click.option("--awake", type=SHARE, default=1.0, show_default=True, help="Share called within the idle time-out.")
@click.option("--warm", type=click.IntRange(0), default=100, show_default=True, help="`knative.warm_pool`.")
@click.option("--most-kept", type=click.IntRange(0), default=1000, show_default=True, help="`knative.most_kept`.")
@click.option("--request-share", type=SHARE, default=0.5, show_default=True, help="`knative.request_share`.")
@click.option("--price", "prices", multiple=True, callback=_prices, help="NAME=USD in place of a list price.")
@out.output_option
def size(output: str, prices: Prices, mix: dict[Measured, float], **wanted: Any) -> None:
    """Say how many cells, pods and nodes agents and their calls need on Kubernetes, and their price a month.

    What models cost isn't in it. The page "How large a cluster" has the formulas and where their figures come from.
    """
    demand = Demand(**wanted) if not mix else Demand(**wanted, mix=mix)
    found = reckoned(demand, prices)
    if output != "table":
        out.show({"demand": asdict(demand), "prices": asdict(prices), "size": asdict(found)}, output)
        return
    out.table(PODS, [asdict(one) for one in found.pods])
    click.echo("\n" + "\n".join(lines(found, prices)))


def lines(found: Size, prices: Prices) -> list[str]:
    """The sums, for people."""
    short = "" if found.nodes_needed == found.agent_nodes else f" ({found.nodes_needed} needed)"
    thousand = found.usd_per_thousand_calls
    return [
        f"{found.cells} cells, {found.host_pods} pods of hosts, {found.gateways} gateways",
        f"{found.agent_nodes} nodes for agents{short}, {found.control_nodes} for the platform",
        *(f"{name}: {usd:,.0f} USD a month" for name, usd in found.parts.items()),
        f"together: {found.usd_per_month:,.0f} USD a month"
        + ("" if thousand is None else f", {thousand:.3f} USD for a thousand calls"),
        f"prices: {prices.source}",
        *(f"note: {note}" for note in found.notes),
    ]
