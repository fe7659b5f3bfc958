"""An OpenAI-compatible endpoint that answers at once, for agents without Chimera.

python -m benchmarks.instant_model PORT
"""

import asyncio
import sys

import uvloop
from aiohttp import web

ANSWER = (
    b'{"id":"1","object":"chat.completion","created":0,"model":"instant","choices":[{"index":0,"finish_reason":"stop",'
    b'"message":{"role":"assistant","content":"This is done. TERMINATE"}}],'
    b'"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}'
)


async def complete(request: web.BaseRequest) -> web.Response:
    """Answer anything."""
    await request.read()
    return web.Response(body=ANSWER, content_type="application/json")


async def serve(port: int) -> None:
    """Serve until killed."""
    runner = web.ServerRunner(web.Server(complete))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, backlog=512).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
