"""What tests of a host need: a fake platform behind the internal API, and a real host process in front of it.

`chimera_host.testing.platform` serves the internal API from dictionaries and answers model calls from a script;
`chimera_host.testing.process` starts hosts and zygotes as real processes and speaks to them; `builders` makes agents'
documents in one line. Shipped, because whoever writes an agent or a framework adapter needs them too.
"""
