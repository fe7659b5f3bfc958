"""The operations on rollouts, which the control plane serves and the gateway passes on."""

from chimera.delivery.rollout import api
from chimera.entrypoints.published.operation import TENANT, Operation, of_control_plane
from chimera.entrypoints.published.parameters import HEADER_KEY, KEY, page

ROLLOUT = TENANT + "/rollouts/{rollout}"
_READ, _WRITE = "rollout:read", "rollout:write"
_operation = of_control_plane("delivery")


def _asked(verb: str, summary: str) -> Operation:
    told = ("POST", f"{ROLLOUT}/{verb}", f"{verb}_rollout", summary)
    return _operation(*told, api.RolloutRow, _WRITE, body=api.Why, body_required=False)


ROLLOUTS = (
    _operation(
        *("GET", TENANT + "/rollouts", "list_rollouts", "Rollouts, the newest first, in pages"),
        api.RolloutPage,
        _READ,
        query=page("rollouts"),
    ),
    _operation(
        *("POST", TENANT + "/rollouts", "start_rollout", "Roll out a batch of definitions wave by wave"),
        api.RolloutRow,
        _WRITE,
        body=api.StartRollout,
        headers=((HEADER_KEY, KEY, "starting again with the same one finds the same rollout"),),
        status=201,
    ),
    _operation("GET", ROLLOUT, "get_rollout", "A rollout", api.RolloutRow, _READ),
    _operation(
        *("GET", ROLLOUT + "/agents", "list_rollout_agents", "The agents of a rollout, in pages"),
        api.MemberPage,
        _READ,
        query=page("agents"),
    ),
    _operation(
        *("GET", ROLLOUT + "/events", "watch_rollout", "A rollout each time it changes, until it is over"),
        None,
        _READ,
        media="text/event-stream",
    ),
    _asked("pause", "Have a rollout go no further"),
    _asked("resume", "Have a paused rollout go on"),
    _asked("abort", "Take back all of a rollout"),
)
