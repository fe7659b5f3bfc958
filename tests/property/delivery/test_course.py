"""The course of a change: nothing goes to production that wasn't checked and approved, and nothing stands still."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from chimera.delivery import course
from chimera.delivery.approvals import Who, standing
from chimera.delivery.course import Installed, next_step
from chimera.delivery.errors import DeliveryError
from chimera.delivery.freezes import frozen
from chimera.delivery.model import Approval, Change, Emergency, Verdict
from chimera.delivery.policy import DAYS, ApprovalRule, Approvals, DeliveryPolicy, Freeze, Need
from chimera.delivery.settings import DeliverySettings
from chimera.delivery.transitions import amend, begin_build, built, decide, declare_emergency, stage

SETTINGS = DeliverySettings()
ALWAYS = Freeze(name="always", days=DAYS, starts="00:00", ends="00:00")
AUTHOR, BEN, CARA = (f"user:https://idp.example|{name}" for name in ("anna", "ben", "cara"))
NOW = 1_800_000_000.0
outcomes = st.sampled_from(["passed", "passed", "passed", "failed", "skipped"])


def verdict(stage: Any, check: str, outcome: Any) -> Verdict:
    return Verdict(stage=stage, check=check, outcome=outcome, detail="d", next_step="n")


@st.composite
def changes(draw: st.DrawFn) -> Change:
    verdicts = [
        verdict(stage, check, draw(outcomes))
        for stage, check in (
            *(("build", "secrets"), ("build", "tests"), ("approval", "quality")),
            *(("staging", "latency"), ("staging", course.STAGING_CHECK)),
        )
        if draw(st.booleans())
    ]
    approvals = tuple(
        Approval(by=who, person=who, decision=said, content=content, at=NOW, roles=("approver",))
        for who in (AUTHOR, BEN, CARA)
        for said, content in [draw(st.sampled_from([("approved", "new"), ("rejected", "new"), ("approved", "old")]))]
        if draw(st.booleans())
    )
    emergency = Emergency(by=CARA, person=CARA, reason="all is broken", at=NOW, review_due=NOW + 9)
    since = NOW - draw(st.sampled_from([0, 3_600, 7 * 3_600, 40 * 86_400]))
    return Change(
        id="chg_1",
        tenant="default",
        title="t",
        author=AUTHOR,
        author_person=AUTHOR,
        items=(),
        content="new",
        risk=draw(st.sampled_from(["low", "medium", "high"])),
        state=draw(st.sampled_from(["open", "building", "awaiting-approval", "staging"])),
        created=since,
        updated=since,
        since=since,
        verdicts=tuple(verdicts),
        approvals=approvals,
        emergency=draw(st.none() | st.just(emergency)),
    )


policies = st.builds(
    DeliveryPolicy,
    freezes=st.sampled_from([(), (ALWAYS,)]),
    approvals=st.builds(
        Approvals,
        low=st.builds(ApprovalRule, automatic=st.booleans(), needs=st.sampled_from([(), (Need(),)])),
        high=st.just(ApprovalRule(needs=(Need(count=2),))),
    ),
)
everything = st.builds(
    Installed,
    checks=st.sampled_from([(), ("secrets",), ("secrets", "tests")]),
    reviewers=st.sampled_from([(), ("quality",)]),
    staging=st.booleans(),
)


@given(changes(), policies, everything)
def test_production_begins_only_with_all_that_it_needs(
    change: Change, policy: DeliveryPolicy, installed: Installed
) -> None:
    step = next_step(change, policy, installed, SETTINGS, NOW)
    if not isinstance(step, course.ToProduction):
        return
    assert change.state in ("awaiting-approval", "staging"), "the checks have passed on this content"
    if change.emergency is None:
        assert standing(change, policy, installed.reviewers).approved
        assert frozen(policy.freezes, change.risk, NOW) is None
        if installed.staging:
            assert change.state == "staging"
            staged = [one for one in change.verdicts if one.stage == "staging"]
            assert any(one.check == course.STAGING_CHECK for one in staged)
            assert all(one.outcome == "passed" for one in staged)


@given(changes(), policies, everything)
def test_approval_begins_only_with_every_check_passed(
    change: Change, policy: DeliveryPolicy, installed: Installed
) -> None:
    if isinstance(next_step(change, policy, installed, SETTINGS, NOW), course.FinishBuild):
        said = {one.check: one.outcome for one in change.verdicts if one.stage == "build"}
        assert set(installed.checks) <= set(said)
        assert set(said.values()) <= {"passed"}


@given(changes(), policies, everything)
def test_who_waits_is_told_for_what_and_nobody_waits_for_ever(
    change: Change, policy: DeliveryPolicy, installed: Installed
) -> None:
    step = next_step(change, policy, installed, SETTINGS, NOW)
    if isinstance(step, course.Wait):
        assert step.reason and step.next_step
        if not standing(change, policy, installed.reviewers).approved and change.state == "awaiting-approval":
            assert NOW - change.since <= SETTINGS.approval_days * 86_400
    if isinstance(step, course.Ask) and step.stage == "build":
        assert NOW - change.since <= SETTINGS.build_hours * 3_600
    if isinstance(step, course.Advance):
        assert NOW - change.since <= SETTINGS.staging_hours * 3_600


actions = st.lists(
    st.tuples(
        st.sampled_from(["begin", "built", "stage", "approve", "reject", "amend", "emergency"]),
        st.sampled_from([AUTHOR, BEN, CARA]),
    ),
    max_size=12,
)


@given(actions)
def test_however_it_got_there_another_content_begins_anew(done: list[tuple[str, str]]) -> None:
    policy = DeliveryPolicy()
    now, change = NOW, _FRESH
    for number, (what, person) in enumerate(done):
        who = Who(actor=person, person=person, roles=frozenset({"approver", "admin"}))
        before = change
        try:
            if what == "begin":
                change = begin_build(change, now).change
            elif what == "built":
                change = built(change, now).change
            elif what == "stage":
                change = stage(change, now).change
            elif what == "amend":
                change = amend(change, (), "low", (), who, now).change
            elif what == "emergency":
                change = declare_emergency(change, policy, who, "all is broken now", now).change
            else:
                said: Any = "approved" if what == "approve" else "rejected"
                change = decide(change, policy, who, said, change.content, "", now).change
        except DeliveryError:
            assert change is before
            continue
        assert change.version == before.version + 1, number
        if what == "amend":
            assert (change.state, change.verdicts, change.emergency) == ("open", (), None)
            assert person in (change.author_person, *change.contributors)
        if what == "approve":
            assert person != change.author_person and person not in change.contributors


_FRESH = Change(
    id="chg_1",
    tenant="default",
    title="t",
    author=AUTHOR,
    author_person=AUTHOR,
    items=(),
    content="new",
    risk="high",
    state="open",
    created=NOW,
    updated=NOW,
    since=NOW,
)
