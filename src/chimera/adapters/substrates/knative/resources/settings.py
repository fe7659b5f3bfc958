"""Settings of the operator: whose resources go where, and how fast it works."""

from dataclasses import dataclass

from chimera.kernel.ids import is_name
from chimera.kernel.settings import SettingsError, setting


@dataclass(frozen=True, kw_only=True, slots=True)
class OperatorSettings:
    """Agents, templates and cells as resources of a cluster."""

    tenant: str = setting(
        "default",
        "The tenant of agents in namespaces that `operator.tenants` doesn't name; empty: those are refused. Whoever "
        "may make an Agent in such a namespace puts agents into service there.",
    )
    tenants: tuple[str, ...] = setting((), "Tenants of namespaces, as `namespace=tenant`.")
    batch: int = setting(1_000, "Most agents that are applied in one transaction.", minimum=1, maximum=2_000)
    statuses_per_second: float = setting(
        100.0, "Most statuses a second that are sent to the API server.", minimum=0.1, maximum=10_000
    )
    settle: float = setting(
        0.3, "After a change the operator waits this long for others, to take them together.", unit="s", minimum=0
    )
    poll: float = setting(
        1.0, "How often the catalogue is asked whether it changed; one read of one number.", unit="s", minimum=0.05
    )
    grace: float = setting(
        300.0,
        "An agent whose resource was gone when the operator started goes after this long, so that a cluster which is "
        "restored has time to get its resources back. One that is deleted later goes at once.",
        unit="s",
        minimum=0,
    )

    gather: float = setting(
        10.0,
        "Agents that may not go live at once are gathered, a tenant's into one change request and a Rollout's into one "
        "rollout, until none of them has changed for this long, or for six times as long in all.",
        unit="s",
        minimum=0,
    )

    def check(self) -> None:
        """Refuse tenants that can't be; raises `SettingsError`."""
        faults = [
            f"operator.tenants: {entry!r} is not `namespace=tenant`"
            for entry in self.tenants
            if entry.count("=") != 1 or not all(is_name(part.strip()) for part in entry.split("="))
        ]
        if self.tenant and not is_name(self.tenant):
            faults.append(f"operator.tenant: {self.tenant!r} is not a tenant's name")
        if faults:
            raise SettingsError(faults)

    def tenant_of(self, namespace: str) -> str | None:
        """The tenant of a namespace's agents; None where they are refused."""
        for entry in self.tenants:
            name, _, tenant = entry.partition("=")
            if name.strip() == namespace:
                return tenant.strip()
        return self.tenant or None
