"""Definitions on their way in: check and compile a chunk, in a thread, with every problem of every item.

An item is YAML text or data that a client has parsed already; both take the same checks here, so that nothing depends
on who sent it. What YAML's reader refuses of a text, too many levels and NUL characters, is refused of data here. Cost
grows with items: about 0.1 ms each for data, twice that for text.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
from msgspec import Struct

from chimera.agents.api import Item, ItemResult
from chimera.agents.catalogue import StagedItem
from chimera.agents.compile import Bundle, compile_definition
from chimera.agents.errors import Fault, InvalidDefinition, UnreadableText
from chimera.agents.schema import Place
from chimera.agents.validate import check_data, check_text, path_text
from chimera.agents.yaml import MAX_DEPTH

MAX_ITEMS = 2_000
MAX_FAULTS_SHOWN = 1_000
_LEVELS = f"{MAX_DEPTH} levels"
_NUL = rb"\u0000"


class Taken(Struct, frozen=True, kw_only=True):
    """A chunk after its checks: what is kept of each item, and what its sender is told."""

    staged: list[StagedItem]
    results: list[ItemResult]


def take_in(items: list[Item], *, tenant: str, first: int, bundles: dict[str, Bundle]) -> Taken:
    """Check and compile `items`; `bundles` are the source bundles that are here, by digest."""
    staged: list[StagedItem] = []
    results: list[ItemResult] = []
    for position, item in enumerate(items, start=first):
        one, result = _take_one(item, tenant, position, bundles)
        staged.append(one)
        results.append(result)
    return Taken(staged=staged, results=results)


def _take_one(item: Item, tenant: str, position: int, bundles: dict[str, Bundle]) -> tuple[StagedItem, ItemResult]:
    try:
        files = bundles[item.bundle].files if item.bundle in bundles else None
        if item.text is not None:
            checked = check_text(item.text, file=item.file, files=files)
        else:
            if nested_deeper(item.definition, MAX_DEPTH):
                raise InvalidDefinition([Fault(file=item.file, message="it is nested too deeply", allowed=_LEVELS)])
            checked = check_data(item.definition, file=item.file, files=files)
        bundle = _bundle(item, checked.definition.specification.source, bundles)
        compiled = compile_definition(checked, tenant=tenant, bundle=bundle)
        # The canonical form holds every text that is kept: a search in it spares nearly all definitions the walk.
        if _NUL in compiled.canonical and (faults := [_nul(one, item.file) for one in places_of_nul(item.definition)]):
            raise InvalidDefinition(faults)
    except InvalidDefinition as error:
        return _refused(item, position, tuple(error.faults))
    except UnreadableText as error:
        return _refused(item, position, (error.fault,))
    staged = StagedItem(position=position, source=item.source, file=item.file, compiled=compiled)
    name = compiled.value.agent.name
    return staged, ItemResult(position=position, name=name, revision=compiled.digest, warnings=compiled.warnings)


def nested_deeper(data: Any, depth: int) -> bool:
    """Whether more than `depth` lists and mappings stand within each other in `data`."""
    level: list[Any] = [data]
    for _ in range(depth + 1):
        level = [inner for value in level if type(value) in (dict, list) for inner in _children(value)]
        if not level:
            return False
    return True


def places_of_nul(data: Any, place: Place = ()) -> Iterator[Place]:
    """Where texts in `data` hold a NUL character; a key's place is its mapping's.

    Programs that agents call and databases end a text there, so that they'd go on with another one.
    """
    if type(data) is str:
        if "\0" in data:
            yield place
    elif type(data) is dict:
        if any("\0" in key for key in data):
            yield place
        for key, value in data.items():
            yield from places_of_nul(value, (*place, key))
    elif type(data) is list:
        for index, value in enumerate(data):
            yield from places_of_nul(value, (*place, index))


def _nul(place: Place, file: str | None) -> Fault:
    return Fault(path=path_text(place), file=file, message="a NUL character", allowed="text without it")


def _children(value: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value


def _bundle(item: Item, source: str | None, bundles: dict[str, Bundle]) -> Bundle | None:
    if source is None:
        return None
    if item.bundle is None or item.bundle not in bundles:
        raise InvalidDefinition(
            [
                Fault(
                    path="specification.source",
                    file=item.file,
                    message="the source folder's bundle was not sent",
                    allowed="`chimera apply` packs and sends it",
                )
            ]
        )
    return bundles[item.bundle]


def _refused(item: Item, position: int, faults: tuple[Fault, ...]) -> tuple[StagedItem, ItemResult]:
    problem = msgspec.json.encode(faults[:MAX_FAULTS_SHOWN])
    staged = StagedItem(position=position, source=item.source, file=item.file, problem=problem)
    return staged, ItemResult(position=position, faults=faults[:MAX_FAULTS_SHOWN])
