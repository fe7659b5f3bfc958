"""MCP servers as tools: a client of the Model Context Protocol, over stdio and streamable HTTP.

It is the host's own and not the `mcp` package, for what that costs a process that should be light and start fast
(measured on a quiet machine: 1.7 to 2.4 s and 29 to 37 MB to import, in every host that has one agent with one MCP
tool), because CrewAI and the other frameworks need two incompatible releases of it, built on two HTTP libraries, and
because neither lets an address be pinned, a message be bounded or a server die with its host. A host needs little of
the protocol: the handshake, `tools/list`, `tools/call`, cancelling and pings. The tests run it against the servers of
both releases of that package.

`protocol` is the session, `stdio` and `http` carry it, `events` reads server-sent events, `content` turns results into
text, `tools` binds a server's tools to an agent.
"""
