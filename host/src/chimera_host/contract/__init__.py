"""The wire contract between the platform and a host, version 1.

Everything that crosses the boundary is a frozen `msgspec.Struct` of this package: an agent's compiled document
(`agent`, `behaviour`, `tools`), a call and its answer (`call`), and an error (`problem`). Both sides import it, so a
field exists once. Fields are only ever added, with a default: a process bears a peer of one release of skew.
"""

CONTRACT_VERSION = 1
