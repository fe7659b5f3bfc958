"""Chimera's figures, measured on a platform as a user starts it: `make bench`, or `python -m benchmarks`.

`machine` counts what processes cost, `platform` starts and applies, `load` is the load generator (a process of its
own), `rows` holds one measurement for each row of the table, `beside` measures the same agents without Chimera, and
`report` prints the table and keeps the JSON.
"""
