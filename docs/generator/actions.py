"""The page of actions and roles, from the one list that decisions are made by."""

from chimera.entrypoints.gateway.operations import OPERATIONS
from chimera.gateway.identity.actions import ACTIONS, ROLES
from docs.generator.tables import code, head, table


def page() -> str:
    """The whole page."""
    rows = []
    for action in ACTIONS.values():
        operations = [operation.name for operation in OPERATIONS if operation.action == action.name]
        carried = [role for role in ROLES if role in action.roles]
        rows.append(
            (
                code(action.name),
                action.doc,
                action.resource,
                ", ".join(map(code, carried)),
                ", ".join(map(code, operations)),
            )
        )
    return "\n".join([head("Actions and roles"), _INTRODUCTION, table(_COLUMNS, rows)])


_COLUMNS = ("action", "meaning", "done to", "roles that carry it", "operations of the API")
_INTRODUCTION = """\
What can be allowed or refused. [Roles](../guides/identity.md#roles) carry actions, [policies](../guides/policies.md)
name them, and a key's scopes narrow to them, by name, by thing (`session:*`) or all (`*`). An operation whose path
names no such thing asks about what would hold it: the agent, or the tenant.
"""
