"""Replay in staging: what was said to live agents is put to the new revisions and to the live ones, and compared.

The traffic is replayed and not mirrored: what to replay is there when a change comes, for agents that are called once a
day too, and a call in production neither waits for staging nor knows of it. Nothing is recorded for it. Sessions and
tasks hold their inputs anyway, for as long as their tenant keeps them, and that is what is read.

A replay has environments of its own, in which no agent's tools run; also those of an agent whose tests are integration
tests. They are made after the evaluation cases have passed, so a change holds two environments at a time.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from chimera.agents.compile import CanonicalDefinition
from chimera.delivery.model import Change, Verdict
from chimera.delivery.policy import ReplayPolicy
from chimera.delivery.staging.again import NOT_AGAIN, measurements, slower_again
from chimera.delivery.staging.paired import compare, error_of
from chimera.delivery.staging.ports import Traffic, Wanted
from chimera.delivery.staging.replay import Candidate, Places, Replayed, Replayer, calls_for_each
from chimera.delivery.staging.sampling import Earlier, Mark, evaluated, marks_of, why_not
from chimera.delivery.staging.shares import Want, shares
from chimera.delivery.trials.environments import LEFT_BEHIND, Environments
from chimera.delivery.trials.runner import Judge, Place
from chimera.delivery.trials.settings import TrialSettings
from chimera.kernel.clock import Clock
from chimera.kernel.leases import Lease

NAME = "replay"
NEW, LIVE = "staging-replay", "staging-replay-live"
SHOWN = 5
"""Inputs that a verdict names."""
LEFT_OUT = "trials.staging_most_calls leaves no call for it"
AT_ONCE = 200
"""Agents whose earlier inputs are read before the next ones' are."""


class Both(Struct, frozen=True, kw_only=True):
    """An agent's new revision, and the live one that it would replace."""

    new: CanonicalDefinition
    live: CanonicalDefinition

    @property
    def agent(self) -> str:
        """Its name."""
        return self.new.agent.name


class Outcome(Struct, frozen=True, kw_only=True):
    """What a replay has come to; `said` is a sentence for people."""

    verdicts: tuple[Verdict, ...] = ()
    said: str = ""


class Replays:
    """The replays of changes."""

    def __init__(
        self,
        environments: Environments,
        traffic: Traffic,
        replayer: Replayer,
        clock: Clock,
        settings: TrialSettings,
    ) -> None:
        """Read `traffic`, and put it to agents in `environments` by `replayer`."""
        self._environments = environments
        self._traffic = traffic
        self._replayer = replayer
        self._clock = clock
        self._settings = settings
        self._judges = bool(settings.judge_model)

    def wanted_calls(self, both: Sequence[Both], policy: ReplayPolicy) -> int:
        """Calls that a replay of these agents makes at most, if there is earlier traffic of all of them."""
        return sum(
            self._settings.staging_replays * calls_for_each(self._marks(one), judge=self._judges)
            for one in both
            if why_not(one.new, one.live, policy) is None
        )

    async def run(
        self, change: Change, both: Sequence[Both], policy: ReplayPolicy, bound: int, held: Lease | None
    ) -> Outcome:
        """Replay what there is for these agents, by `bound` calls at most."""
        refused = {one.agent: why for one in both if (why := why_not(one.new, one.live, policy)) is not None}
        mine = [one for one in both if one.agent not in refused]
        if not self._settings.staging_replays or not both:
            return Outcome()
        marks = {one.agent: self._marks(one) for one in mine}
        wanted = self._shared(mine, marks, bound)
        found = await self._earlier(change, wanted, policy)
        candidates = [
            Candidate(new=one.new, live=one.live, inputs=tuple(inputs), marks=marks[one.agent])
            for one in mine
            if (inputs := found.get(one.agent, ())[: wanted[one.agent]])
        ]
        results: Mapping[str, Sequence[Replayed]] = {}
        slower: Collection[str] = ()
        if candidates:
            results, slower = await self._replayed(change, candidates, bound, held)
        reasons = {name: LEFT_OUT for name, count in wanted.items() if not count} | refused
        verdicts = [
            self._verdict(one.agent, results.get(one.agent, ()), reasons, len(candidates), slower) for one in both
        ]
        return _outcome(verdicts, refused)

    async def clear(self, change: Change, held: Lease | None) -> None:
        """Take the environments away, if there are any."""
        for purpose in (NEW, LIVE):
            await self._environments.remove(change.tenant, purpose, change.id, held=held)

    # -- what is asked ------------------------------------------------------------------------------------------------

    def _marks(self, one: Both) -> tuple[Mark, ...]:
        return marks_of(evaluated(one.new), judge=self._judges)

    def _shared(self, mine: Sequence[Both], marks: Mapping[str, Sequence[Mark]], bound: int) -> dict[str, int]:
        """How many inputs each agent may be asked."""
        costs = [calls_for_each(marks[one.agent], judge=self._judges) for one in mine]
        given = shares([Want(least=cost, most=cost * self._settings.staging_replays) for cost in costs], bound)
        return {one.agent: share // cost for one, share, cost in zip(mine, given, costs, strict=True)}

    async def _earlier(
        self, change: Change, wanted: Mapping[str, int], policy: ReplayPolicy
    ) -> dict[str, Sequence[Earlier]]:
        """What is there to replay; the audit log says that it was read."""
        names = [name for name, count in wanted.items() if count]
        how = Wanted(
            want=max(wanted.values(), default=0),
            kept_until=self._clock.wall() + self._settings.life + LEFT_BEHIND,
            people=policy.people,
            most_bytes=self._settings.replay_bytes,
            seed=change.content,
        )
        found: dict[str, Sequence[Earlier]] = {}
        for first in range(0, len(names), AT_ONCE):
            found |= await self._traffic.earlier(change.tenant, names[first : first + AT_ONCE], how)
        inputs = sum(len(some) for some in found.values())
        if inputs:
            people = sum(one.subject is not None for some in found.values() for one in some)
            counts = {"agents": sum(bool(some) for some in found.values()), "inputs": inputs, "of_people": people}
            await self._traffic.told(change.tenant, change.id, counts)
        return found

    async def _replayed(
        self, change: Change, candidates: Sequence[Candidate], bound: int, held: Lease | None
    ) -> tuple[Mapping[str, Sequence[Replayed]], Collection[str]]:
        """What came of the inputs, and the agents that are slower, each time that it is measured."""
        key = f"{NAME}\0{change.work_key}"
        name, agent = await self._environments.make(
            change.tenant,
            NEW,
            change.id,
            [one.new for one in candidates],
            tools="scripted",
            judge=self._judges,
            held=held,
        )
        judge = None if agent is None else Judge(environment=name, agent=agent)
        live, _ = await self._environments.make(
            change.tenant, LIVE, change.id, [one.live for one in candidates], tools="scripted", held=held
        )
        places = Places(
            new=Place(key=key, scripted=name, real=name, judge=judge), live=Place(key=key, scripted=live, real=live)
        )
        most = len(candidates)

        async def is_kept(one: Earlier) -> bool:
            return await self._traffic.is_kept(change.tenant, one)

        def slow(found: Mapping[str, Sequence[Replayed]]) -> list[str]:
            return [agent for agent, some in found.items() if compare([one.pair for one in some], agents=most).slower]

        async def again(names: Collection[str], number: int) -> list[str]:
            bare = [replace(one, marks=()) for one in candidates if one.agent in names]
            there = Places(
                new=replace(places.new, key=f"{key}\0{number}", judge=None),
                live=replace(places.live, key=f"{key}\0{number}"),
            )
            return slow(await self._replayer.run(bare, there, is_kept))

        results = await self._replayer.run(candidates, places, is_kept)
        spent = sum(len(one.inputs) * calls_for_each(one.marks, judge=self._judges) for one in candidates)
        costs = {one.agent: len(one.inputs) * calls_for_each((), judge=False) for one in candidates}
        times = measurements(error_of(most))
        slower, _ = await slower_again(slow(results), costs, again, times=times, bound=bound - spent)
        await self.clear(change, held)
        return results, slower

    # -- what is said -------------------------------------------------------------------------------------------------

    def _verdict(
        self,
        agent: str,
        results: Sequence[Replayed],
        why: Mapping[str, str],
        agents: int,
        slower: Collection[str],
    ) -> Verdict:
        judged = compare([one.pair for one in results], agents=agents)
        faults = [*judged.faults, *([judged.slower] if agent in slower else [])]
        evidence = {**judged.figures, "low_evidence": judged.low_evidence}
        evidence |= {f"{kind}s": count for kind, count in Counter(one.input.kind for one in results).items()}
        worse = [one for one in results if one.missed or one.pair.new.failed > one.pair.live.failed]
        missed = Counter(label for one in worse for label in one.missed)
        if missed:
            evidence["missed"] = dict(missed.most_common(SHOWN))
        if worse:
            evidence["worse_on"] = [one.input.reference for one in worse[:SHOWN]]
        if faults:
            said = "; ".join(faults)
            said += f"; most often missed: {missed.most_common(1)[0][0]}" if missed else ""
        elif results:
            said = f"on {len(results)} earlier inputs it is not shown to be worse than the live revision"
        else:
            said = f"nothing was replayed: {why.get(agent, 'no earlier input is there')}"
        if judged.slower and agent not in slower:
            said += NOT_AGAIN
        if judged.low_evidence:
            said += " (low evidence)"
        return Verdict(
            stage="staging",
            check=NAME,
            outcome="failed" if faults else "passed",
            agent=agent,
            detail=said[:1_000],
            next_step="see what the verdict names, and try both revisions with it" if faults else "",
            evidence=evidence,
            at=self._clock.wall(),
        )


def _outcome(verdicts: Sequence[Verdict], refused: Mapping[str, str]) -> Outcome:
    asked = [one for one in verdicts if one.evidence["inputs"]]
    low = sum(bool(one.evidence["low_evidence"]) for one in verdicts)
    said = f"earlier inputs were replayed to {len(asked):,} of {len(verdicts):,} agents that are live"
    if refused:
        said += f", {len(refused):,} may not be replayed to"
    if low:
        said += f", the evidence on {low:,} is low"
    return Outcome(verdicts=tuple(verdicts), said=said)
