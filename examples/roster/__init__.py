"""What the example rosters share: from a described piece of work to an agent's definition on disk.

A source (`esco`, `onet`) reads its data into `Entry` values; everything after that is the same for all sources, and
follows rules on the text, never on where it came from.
"""
