"""Requests that are sent once.

aiohttp's client sends a PUT or a DELETE again by itself where the connection breaks before the answer, also where the
server had acted by then. The second is refused as a conflict or finds nothing left to delete, and the caller is told
that instead of what happened. A session with the middleware `sent_once` says that the answer was lost.
"""

import aiohttp

READING = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that change nothing: these may be sent again."""


class AnswerLost(aiohttp.ClientConnectionError):
    """The connection broke before the answer. Whether the server acted is not known."""


async def sent_once(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Middleware of a client session: `AnswerLost` where a connection breaks over a request that may change something.

    The client sends again after errors of two kinds, of which that one is neither.
    """
    try:
        return await handler(request)
    except aiohttp.ClientConnectorError:
        raise  # Nothing was sent.
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        if request.method in READING:
            raise
        raise AnswerLost(f"the connection broke before the answer: {error}") from error
