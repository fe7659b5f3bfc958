"""The operations on change requests and delivery policies, which the control plane serves and the gateway passes on."""

from typing import Any, get_args

from chimera.delivery import api
from chimera.delivery.model import State
from chimera.delivery.policy import Freeze
from chimera.entrypoints.published.operation import TENANT, Operation, of_control_plane
from chimera.entrypoints.published.parameters import HEADER_KEY, KEY, one_of, page

CHANGE = TENANT + "/changes/{change}"
POLICY = TENANT + "/delivery"
IN_FLIGHT = "in-flight"
STATES = (IN_FLIGHT, *get_args(State))
_WRITE, _READ, _APPROVE = "change:write", "change:read", "change:approve"
_operation = of_control_plane("delivery")


def _asked(verb: str, name: str, summary: str, action: str, body: Any, *, required: bool = True) -> Operation:
    return _operation(
        *("POST", f"{CHANGE}/{verb}", name, summary, api.ChangeView, action), body=body, body_required=required
    )


CHANGES = (
    _operation(
        *("GET", TENANT + "/changes", "list_changes", "Change requests, the newest first, in pages"),
        api.ChangePage,
        _READ,
        query=(
            ("state", one_of(*STATES), f"only changes in this state; `{IN_FLIGHT}`: that haven't ended"),
            ("agent", "string", "only changes that touch this agent"),
            *page("changes"),
        ),
    ),
    _operation(
        *("POST", TENANT + "/changes", "open_change", "Open a change request; the same batch again finds the same one"),
        api.ChangeView,
        _WRITE,
        body=api.OpenChange,
        headers=((HEADER_KEY, KEY, "opening again with the same one finds the same change"),),
        status=201,
    ),
    _operation("GET", CHANGE, "get_change", "A change request", api.ChangeView, _READ),
    _operation(
        *("GET", CHANGE + "/items", "list_change_items", "The agents of a change, in pages", api.ItemPage, _READ),
        query=page("agents"),
    ),
    _operation(
        *("GET", CHANGE + "/verdicts", "list_change_verdicts", "What checks said of a change, in pages"),
        api.VerdictPage,
        _READ,
        query=page("verdicts"),
    ),
    _operation(
        *("PUT", CHANGE + "/content", "amend_change", "Give a change other content; its approvals end"),
        api.ChangeView,
        _WRITE,
        body=api.Content,
        headers=((HEADER_KEY, KEY, "sending it again with the same one finds the change as it has become"),),
    ),
    _asked("approve", "approve_change", "Approve the content of a change", _APPROVE, api.Word),
    _asked("reject", "reject_change", "Reject the content of a change", _APPROVE, api.Word),
    _asked("review", "review_change", "Say what you think of an emergency afterwards", _APPROVE, api.Review),
    _asked("emergency", "declare_emergency", "Send a change on the emergency path", _WRITE, api.Why),
    _asked("abort", "abort_change", "Give a change up, or have it taken back", _WRITE, api.Why, required=False),
    _asked("pause", "pause_change", "Have a change's rollout stand still", _WRITE, api.Why, required=False),
    _asked("resume", "resume_change", "Have a paused rollout go on", _WRITE, api.Why, required=False),
    _operation(
        *("GET", POLICY + "/policy", "get_delivery_policy", "The tenant's delivery policy", api.PolicyView),
        "delivery:read",
    ),
    _operation(
        *("PUT", POLICY + "/policy", "put_delivery_policy", "Put the tenant's delivery policy", api.PolicyView),
        "delivery:write",
        body=api.PutPolicy,
    ),
    _operation(
        *("PUT", POLICY + "/freezes", "put_freeze", "Add a freeze window, or replace the one of its name"),
        api.PolicyView,
        "delivery:write",
        body=Freeze,
    ),
    _operation(
        *("DELETE", POLICY + "/freezes/{freeze}", "drop_freeze", "Remove a freeze window", api.PolicyView),
        "delivery:write",
    ),
)
