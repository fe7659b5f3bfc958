"""The bus of a cluster: facts are sent to a Knative Broker, and come back to the gateways by its one Trigger.

A fact is sent in the binary form and is delivered once the Broker has answered 2xx: what it does with it from then on
(tries again, gives up to its dead letter sink) the gateways are told. While it is away the outbox holds everything, and
tries again. A Broker promises no order and may deliver twice; who is started is settled where events come in.
"""

import aiohttp

from chimera.adapters.push.pusher import MOST_READ, USER_AGENT, outcome_of
from chimera.events.cloudevents import header_value
from chimera.events.delivery.entries import Entry
from chimera.events.delivery.model import Outcome
from chimera.gateway.eventing.seals import SEAL, seal


class KnativeBroker:
    """A `Bus` that is a Broker's ingress. Made inside the event loop; `aclose` when done."""

    def __init__(self, url: str, *, key: bytes, connections: int, connect_timeout: float, timeout: float) -> None:
        """Publish to `url`, sealed with `key`; times in seconds."""
        self._url = url
        self._key = key
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=connections),
            timeout=aiohttp.ClientTimeout(total=timeout, sock_connect=connect_timeout),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            headers={"User-Agent": USER_AGENT},
        )

    async def refresh(self) -> None:
        """See `Bus`: who wants an event is asked where it comes back."""

    def wants(self, entry: Entry) -> bool:
        """See `Bus`: others in the cluster may want any."""
        return True

    async def publish(self, entry: Entry) -> Outcome:
        """See `Bus`."""
        headers, body = entry.written("binary")
        sealed = {f"ce-{SEAL}": header_value(seal(self._key, entry.attributes, body))}
        try:
            async with self._session.post(
                self._url, data=body, headers={**headers, **sealed}, allow_redirects=False
            ) as answer:
                await answer.content.read(MOST_READ)
                outcome = outcome_of(answer.status, answer.headers.get("Retry-After"))
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            return Outcome(result="failed", reason=f"the broker can't be reached: {type(error).__name__}")
        if outcome.result == "gone":  # a broker that is being deleted: its events wait for another
            return Outcome(result="failed", status=outcome.status, reason="the broker is gone")
        return outcome

    async def aclose(self) -> None:
        """Close the connections."""
        await self._session.close()
