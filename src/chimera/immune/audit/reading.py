"""A whole verification: reads checkpoints and entries in pages, in the order that makes a growing log verifiable.

The log grows meanwhile. So checkpoints are read first, the head next and the entries up to that head last: whatever is
added later is beyond what is compared. Retention may remove entries meanwhile; then the verification begins again.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence

from chimera.immune.audit.checkpoint import Checkpoint
from chimera.immune.audit.errors import UntrustedCheckpoint
from chimera.immune.audit.note import Checker, PublicKey
from chimera.immune.audit.ports import CheckpointFile, Log
from chimera.immune.audit.verify import Anchors, Report, Verifier

PAGE = 5_000
_ATTEMPTS = 3


async def verify(
    source: Log,
    *,
    keys: Sequence[PublicKey],
    checker: Checker,
    files: Sequence[tuple[str, CheckpointFile]] = (),
    trusted: int | None = None,
    progress: Callable[[int, int], None] = lambda checked, end: None,
) -> Report:
    """Verify a log.

    Args:
        source: Where its entries and checkpoints are.
        keys: Its public keys.
        checker: What checks signatures.
        files: Checkpoints kept elsewhere, each with a name for messages.
        trusted: Begin at the largest signed checkpoint of at most so many entries, as everything before it was verified
            another time. Raises `UntrustedCheckpoint` where there is none.
        progress: Told after each page how many entries were checked, and the place of the last.
    """
    for _ in range(_ATTEMPTS):
        first = await source.first()
        begin = first - 1 if first is not None else 0
        anchors = Anchors(keys, checker, at_least=begin, at_most=trusted)
        for where, file in files:
            await asyncio.to_thread(_add_all, anchors, file, where)
        after = 0
        while page := await source.checkpoints(after, PAGE):
            await asyncio.to_thread(_add, anchors, page, "the log's own checkpoints")
            after = page[-1].size
        if trusted is not None and anchors.base is None:
            raise UntrustedCheckpoint(
                f"no signed checkpoint of at most {trusted} entries is there to begin at",
                next_step="see `chimera audit checkpoints`, or verify from the beginning",
            )
        report = await _entries(source, anchors, begin, progress, resumed=trusted is not None)
        if await source.first() == first:
            break
    return report


async def _entries(
    source: Log, anchors: Anchors, begin: int, progress: Callable[[int, int], None], *, resumed: bool
) -> Report:
    verifier = Verifier(anchors, resumed=resumed)
    head = await source.head()
    place = begin if anchors.base is None else max(begin, anchors.base.size)
    while head is None or place < head.seq:
        page = await source.entries(place, PAGE if head is None else min(PAGE, head.seq - place))
        if not page:
            break
        within = page if head is None or page[-1].seq <= head.seq else [one for one in page if one.seq <= head.seq]
        await asyncio.to_thread(verifier.feed, within)
        place = page[-1].seq
        progress(verifier.checked, place)
    if head is not None and (beyond := await source.entries(max(place, head.seq), 1)):
        again = await source.head()
        if again is not None and again.seq < beyond[0].seq:
            verifier.feed(beyond)  # an entry that the head doesn't count, and not one appended meanwhile
    return verifier.finish(head)


def _add(anchors: Anchors, checkpoints: Iterable[Checkpoint], where: str) -> None:
    for one in checkpoints:
        anchors.add(one, where)


def _add_all(anchors: Anchors, file: CheckpointFile, where: str) -> None:
    _add(anchors, file.read(), where)
