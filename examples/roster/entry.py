"""A piece of specialised work as a source describes it; one entry becomes one agent."""

from dataclasses import dataclass

from roster.words import content_words


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One piece of work.

    `key` is the source's id, of which eight characters tell agents of one name apart. `label` is a short name in plain
    words, `other_names` what else it is called (may be empty), `definition` one or more sentences. `domains` are
    broader areas, widest first; `capabilities` are what the source itself says that the work needs. `kind` says what
    the entry is to its source: `skill`, `occupation` or `task`.
    """

    key: str
    kind: str
    label: str
    definition: str
    other_names: str = ""
    domains: tuple[str, ...] = ()
    capabilities: tuple[str, ...] = ()

    def words(self) -> list[str]:
        """The content words of names and definition, each once, in order."""
        return content_words(f"{self.label} {self.other_names} {self.definition}")
