"""Every published operation says what its caller must be allowed to do."""

import pytest

from chimera.entrypoints.gateway.operations import OPERATIONS
from chimera.entrypoints.published.operation import Operation
from chimera.gateway.identity.actions import ACTIONS, ROLES, carried_by, covers, is_scope


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda one: one.name)
def test_an_operation_that_needs_a_key_names_an_action(operation: Operation) -> None:
    if operation.key:
        assert operation.action in ACTIONS, f"{operation.name}: give it `action`, one of gateway/identity/actions.py"
    else:
        assert operation.action == "", f"{operation.name} is open to everybody"


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda one: one.name)
def test_what_changes_something_is_never_allowed_to_a_viewer(operation: Operation) -> None:
    asks = {"check_sources", "validate", "diff", "explain_policies", "test_policies", "assess"}
    if operation.method != "GET" and operation.name not in asks and operation.key:
        assert operation.action not in carried_by(frozenset({"viewer"})), operation.name


def test_an_action_is_carried_by_an_admin_and_by_known_roles() -> None:
    for action in ACTIONS.values():
        assert "admin" in action.roles
        assert action.roles <= set(ROLES)
    assert carried_by(frozenset({"nobody"})) == frozenset()


def test_an_approver_makes_no_changes_that_it_could_approve() -> None:
    assert "change:approve" in carried_by(frozenset({"approver"}))
    assert "catalogue:write" not in carried_by(frozenset({"approver"}))
    assert "change:approve" not in carried_by(frozenset({"operator"}))


def test_scopes() -> None:
    assert covers(frozenset({"session:*"}), "session:read")
    assert not covers(frozenset({"session:*"}), "space:read")
    assert covers(frozenset({"*"}), "key:write")
    assert not covers(frozenset(), "key:write")
    assert is_scope("agent:*") and is_scope("agent:invoke") and is_scope("*")
    assert not is_scope("agent") and not is_scope("agent:fly") and not is_scope("fly:*")
