"""Dead letters for callers, of both kinds in one list: events that a receiver did not take, and that an agent did not.

A receiver's are facts that wait where the delivery left them, and go out again by it. An agent's are whole events, and
start the agent anew. Both are named by an id, and by whom they were for.
"""

from collections.abc import Sequence

from chimera.events.delivery.model import Letter
from chimera.events.errors import LetterNotFound
from chimera.events.settings import EventSettings
from chimera.gateway.errors import InvalidRequest
from chimera.gateway.eventing.dispatch import Dispatcher
from chimera.gateway.eventing.happening import of_structured
from chimera.gateway.eventing.ports import AgentLetter, AgentLetterStore
from chimera.gateway.events import api
from chimera.gateway.events.ports import SubscriptionStore


class DeadLetters:
    """The dead letters that one gateway's callers look at, replay and drop."""

    def __init__(
        self,
        store: SubscriptionStore,
        letters: AgentLetterStore,
        dispatcher: Dispatcher,
        *,
        settings: EventSettings,
    ) -> None:
        """Those of receivers are in `store`, those of agents in `letters`, to be started anew by `dispatcher`."""
        self._store = store
        self._letters = letters
        self._dispatcher = dispatcher
        self._settings = settings

    async def page(
        self, tenant: str, agent: str | None, subscription: str | None, after: str, limit: int
    ) -> tuple[list[api.LetterAnswer], bool]:
        """A page of them by id, and whether there are more."""
        found: list[api.LetterAnswer] = []
        if agent is None:
            found += [self._shown(one) for one in await self._store.letters(tenant, subscription, after, limit + 1)]
        if agent is not None or subscription is None:
            some = await self._letters.page(tenant, agent, subscription, after, limit + 1)
            found += [api.agent_letter_answer(one) for one in some]
        found.sort(key=lambda one: one.letter)
        return found[:limit], len(found) > limit

    async def get(self, tenant: str, letter: str) -> api.LetterAnswer:
        """One. Raises `LetterNotFound`."""
        if (found := await self._store.letter(tenant, letter)) is not None:
            return self._shown(found)
        for one in await self._letters.some(tenant, [letter]):
            return api.agent_letter_answer(one)
        raise _missing(letter)

    async def replay(self, tenant: str, body: api.LettersBody, by: str) -> api.Settled:
        """Have them delivered again."""
        of_agents, of_receivers, more = await self._chosen(tenant, body)
        done = await self._store.replay(tenant, of_receivers, by) if of_receivers else 0
        again: list[str] = []
        if of_agents:
            await self._dispatcher.refresh()
        for one in of_agents:
            if not await self._dispatcher.again(one, of_structured(tenant, one.event)):
                raise LetterNotFound(
                    f"agent {one.agent or '(none)'} has no subscription {one.subscription} any more, "
                    f"and {one.letter} is for it",
                    next_step="apply the agent with it again, or drop the dead letter",
                )
            again.append(one.letter)
        if again:
            done += await self._letters.remove(tenant, again, by, replayed=True)
        return api.Settled(dead_letters=done, more=more)

    async def drop(self, tenant: str, body: api.LettersBody, by: str) -> api.Settled:
        """Remove them for good."""
        of_agents, of_receivers, more = await self._chosen(tenant, body)
        done = await self._store.drop(tenant, of_receivers, by) if of_receivers else 0
        if of_agents:
            done += await self._letters.remove(tenant, [one.letter for one in of_agents], by, replayed=False)
        return api.Settled(dead_letters=done, more=more)

    async def _chosen(self, tenant: str, body: api.LettersBody) -> tuple[Sequence[AgentLetter], Sequence[str], bool]:
        named = body.agent is not None or body.subscription is not None
        if (body.dead_letters is None) != named:
            raise InvalidRequest(
                "either `dead_letters` or `subscription` and `agent` say which are meant",
                next_step='send {"dead_letters": ["dl_…"]}, {"subscription": "name"} or {"agent": "name"}',
            )
        if body.dead_letters is not None:
            wanted = list(dict.fromkeys(body.dead_letters))
            of_agents = await self._letters.some(tenant, wanted)
            theirs = {one.letter for one in of_agents}
            return of_agents, [one for one in wanted if one not in theirs], False
        most = api.MOST_LETTERS
        if body.agent is not None:
            some = await self._letters.page(tenant, body.agent, body.subscription, "", most + 1)
            return some[:most], (), len(some) > most
        found = await self._store.letters(tenant, body.subscription, "", most + 1)
        return (), [one.letter for one in found[:most]], len(found) > most

    def _shown(self, letter: Letter) -> api.LetterAnswer:
        return api.letter_answer(letter, self._settings.source)


def _missing(letter: str) -> LetterNotFound:
    return LetterNotFound(
        f"there is no dead letter {letter[:40]!r}", next_step="list them with `chimera events dead-letters list`"
    )
