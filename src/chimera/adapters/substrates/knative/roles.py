"""What processes may do (`rights`), as the cluster's roles and who has them."""

from typing import Any

from chimera.adapters.substrates.knative.labelling import labels, meta
from chimera.adapters.substrates.knative.rights import RIGHTS, Right

Json = dict[str, Any]


def roles(platform: str, cells: str) -> list[Json]:
    """Roles and their bindings, for each component where it has rights."""
    found: list[Json] = []
    for component, rights in RIGHTS.items():
        for namespace in (cells, platform, None):
            rules = [_rule(platform, right) for right in rights if _place(platform, cells, right) == namespace]
            if rules:
                found += _role(platform, component, rules, namespace)
    return found


def _rule(platform: str, right: Right) -> Json:
    rule: Json = {"apiGroups": [right.group], "resources": [right.resource], "verbs": list(right.verbs)}
    if right.only:
        rule["resourceNames"] = [name.format(namespace=platform) for name in right.only]
    return rule


def _place(platform: str, cells: str, right: Right) -> str | None:
    """The namespace that a right is for; None for the whole cluster."""
    if right.everywhere:
        return None
    return platform if right.own else cells


def _role(platform: str, component: str, rules: list[Json], namespace: str | None) -> list[Json]:
    kind = "ClusterRole" if namespace is None else "Role"
    name = f"chimera-{component}"
    # What is in no namespace names the one of its installation, so that two don't share it.
    found: Json = {"name": f"{name}.{platform}", "labels": labels()}
    if namespace is not None:
        found = meta(namespace, name)
    role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": found, "rules": rules}
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": f"{kind}Binding",
        "metadata": found,
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": found["name"]},
        "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": platform}],
    }
    return [role, binding]
