"""Writes everything that follows from the code: the reference pages, the published schemas and the charts.

`python -m docs.generate` writes the files; `--check` writes nothing, names what differs, and then ends with 1. What is
generated is a function of the code alone: no clock, no machine, the same bytes every time.
"""

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec
import yaml

from chimera.adapters.substrates.knative.resources.crds import definitions
from chimera.agents import reference, schema
from chimera.entrypoints.gateway import openapi
from deploy.generator import base, chart
from docs.generator import actions, api, cli, conditions, errors, events, metrics, settings, sizing

ROOT = Path(__file__).resolve().parents[1]


def _definition_schema() -> bytes:
    return msgspec.json.format(msgspec.json.encode(schema.definition_schema(), order="sorted"), indent=2) + b"\n"


def _openapi_page() -> str:
    return api.page(msgspec.json.decode(openapi.encoded()))


def _types() -> bytes:
    """What the host's types for agents in TypeScript are, where an example is checked by them."""
    return (ROOT / "host" / "src" / "chimera_host" / "node" / "chimera.d.ts").read_bytes()


def _crds(number: int) -> str:
    text = yaml.safe_dump(definitions()[number], sort_keys=False, width=120)
    return f"# Made by `make docs`; `chimera install` applies it.\n{text}"


FILES: dict[str, Callable[[], str | bytes]] = {
    f"schemas/{schema.FILE_NAME}": _definition_schema,
    "schemas/openapi.json": openapi.encoded,
    "examples/typescript/code/chimera.d.ts": _types,
    **{f"deploy/crds/{one['spec']['names']['plural']}.yaml": partial(_crds, n) for n, one in enumerate(definitions())},
    f"docs/reference/{reference.FILE_NAME}": reference.page,
    "docs/reference/settings.md": settings.page,
    "docs/reference/errors.md": errors.page,
    "docs/reference/api.md": _openapi_page,
    "docs/reference/cli.md": cli.page,
    "docs/reference/actions.md": actions.page,
    "docs/reference/events.md": events.page,
    "docs/reference/metrics.md": metrics.page,
    "docs/sizing.md": sizing.page,
    "docs/reference/conditions.md": conditions.page,
}


def generated() -> dict[Path, bytes]:
    """Every generated file's content, by its path."""
    made = {ROOT / name: make() for name, make in FILES.items()}
    made |= {ROOT / name: text for name, text in {**chart.files(), **base.files()}.items()}
    return {path: text.encode() if isinstance(text, str) else text for path, text in made.items()}


def main() -> int:
    """Write the generated files, or check them."""
    parser = argparse.ArgumentParser(prog="python -m docs.generate", description=main.__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; end with 1 where a file differs")
    options = parser.parse_args()
    stale = []
    for path, content in generated().items():
        if path.exists() and path.read_bytes() == content:
            continue
        stale.append(path.relative_to(ROOT))
        if not options.check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    for name in stale:
        print(f"{'differs' if options.check else 'wrote'}: {name}")
    if stale and options.check:
        print("Next: run `make docs` and commit what it writes.")
    return int(options.check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
