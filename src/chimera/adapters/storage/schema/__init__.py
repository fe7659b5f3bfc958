"""The tables, one module an area; `tables` has all of them. The tenant is in every key.

Times are seconds since the epoch. Values that only code reads are bytes (JSON): they are the same on every database,
and no database's JSON type has a say in what they may hold.
"""
