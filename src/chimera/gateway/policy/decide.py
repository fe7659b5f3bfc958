"""Deciding: from a question to a decision, through a cache, a slice and Cedar.

    question -> kept decision?  -> slice of the policies (slicing.py) -> Cedar on the slice -> keep it

Cedar decides every question that isn't answered by a kept decision; what stands around it changes the cost alone. That
is tested against Cedar over all policies, at random. There is one addition: Cedar passes over a policy that fails (an
overflow, an attribute that isn't there), so a failing `forbid` would let through; here any failure refuses.

A kept decision holds for exactly its question: principal with roles and scopes, action, resource with the agent's
sequence, circumstances. What else it depends on are the policies, and a change of one drops everything kept. Parsed
slices are kept too, by their bits, since most questions share a few.

Memory is bounded: `decisions` kept decisions (about 1 KB each, shared strings aside), `slices` parsed sets, `tenants`
indices. Time for an uncached question grows with the policies in its slice, not with the policies.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

from chimera.gateway.identity.principal import ALL_TENANTS
from chimera.gateway.policy.model import Decision, Question, refusal
from chimera.gateway.policy.ports import PolicyEngine, PolicySet, Statement
from chimera.gateway.policy.slicing import Index, positions
from chimera.gateway.policy.vocabulary import hierarchy, mentioned, role_policies
from chimera.kernel.lru import Lru

NO_PERMIT = "no-permit"
"""The reason of a refusal that no policy made: none permits it."""
FAULT = "fault"
"""The reason of a refusal because something failed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PolicyDocument:
    """One stored policy text: `name` in `tenant` (`ALL_TENANTS`: asked for every tenant)."""

    tenant: str
    name: str
    text: str


class Policies:
    """Decides by Cedar. Not for several threads: it belongs to the event loop."""

    def __init__(
        self, engine: PolicyEngine, *, decisions: int = 65_536, slices: int = 4_096, tenants: int = 256
    ) -> None:
        """Decide with `engine`; keep as much as the bounds say."""
        self._engine = engine
        self._kept: Lru[Hashable, Decision] = Lru(decisions)
        self._slices: Lru[tuple[str, int], PolicySet] = Lru(slices)
        self._indices: Lru[str, _Sliced] = Lru(tenants)
        self._most_tenants = tenants
        self._roles = [(name, engine.parse(text)[0]) for name, text in role_policies().items()]
        self._documents: dict[str, dict[str, PolicyDocument]] = {}
        self._parsed: dict[tuple[str, str], _Parsed] = {}
        self.hits = self.misses = 0

    def replace(self, changed: Sequence[PolicyDocument], gone: Sequence[tuple[str, str]] = ()) -> None:
        """Take over changed documents, and drop those `gone` (tenant and name). Nothing decided before counts."""
        for document in changed:
            self._documents.setdefault(document.tenant, {})[document.name] = document
        for tenant, name in gone:
            self._documents.get(tenant, {}).pop(name, None)
            self._parsed.pop((tenant, name), None)
        self.forget()
        self._slices.drop()
        self._indices.drop()

    def forget(self) -> None:
        """Drop every kept decision."""
        self._kept.drop()

    def documents(self, tenant: str) -> Mapping[str, PolicyDocument]:
        """The stored policies of `tenant`, by name."""
        return self._documents.get(tenant, {})

    def decide(self, question: Question) -> Decision:
        """The decision; any fault refuses."""
        resource, facts, caller = question.resource, question.resource.facts, question.caller
        key = (
            question.principal,
            question.action,
            resource.kind,
            resource.tenant,
            resource.agent,
            resource.name,
            -1 if facts is None else facts.sequence,
            -1 if caller is None else caller.sequence,
            question.context,
        )
        if (kept := self._kept.get(key)) is not None:
            self.hits += 1
            return kept
        self.misses += 1
        decision = self._decided(question)
        self._kept.put(key, decision)
        return decision

    def _decided(self, question: Question) -> Decision:
        try:
            sliced = self._sliced(question.resource.tenant)
            if sliced.broken:
                return refusal(FAULT, *sliced.broken)
            asked = hierarchy(question, sliced.attributes)
            bits = sliced.index.slice(asked)
            if not bits:
                return refusal(NO_PERMIT)
            key = (question.resource.tenant, bits)
            policies = self._slices.get(key)
            if policies is None:
                policies = self._engine.make([sliced.statements[position] for position in positions(bits)])
                self._slices.put(key, policies)
            decision = policies.decide(asked)
        except Exception as error:
            # Whatever fails, in Cedar or here, refuses: a guard that lets through when it is confused guards nothing.
            return refusal(FAULT, f"{type(error).__name__}: {error}")
        if decision.errors:
            return refusal(FAULT, *decision.errors)
        return decision if decision.reasons else refusal(NO_PERMIT)

    def _sliced(self, tenant: str) -> "_Sliced":
        found = self._indices.get(tenant)
        if found is None:
            owners = (ALL_TENANTS,) if tenant == ALL_TENANTS else (ALL_TENANTS, tenant)
            found = _Sliced(self._roles, [self._read(one) for owner in owners for one in self._of(owner)])
            self._indices.put(tenant, found)
        return found

    def _of(self, tenant: str) -> list[PolicyDocument]:
        return [document for _, document in sorted(self._documents.get(tenant, {}).items())]

    def _read(self, document: PolicyDocument) -> "_Parsed":
        """The document as parsed before, where it hasn't changed: most of them, at most changes."""
        key = (document.tenant, document.name)
        known = self._parsed.get(key)
        if known is None or known.document != document:
            known = self._parsed[key] = _Parsed(self._engine, document)
        return known


class _Parsed:
    """One document, read: its policies with their ids, and the attributes that they ask for; or why it can't be."""

    def __init__(self, engine: PolicyEngine, document: PolicyDocument) -> None:
        self.document = document
        self.fault: str | None = None
        self.statements: list[tuple[str, Statement]] = []
        try:
            parsed = engine.parse(document.text)
        except Exception as error:
            # It was valid when it was stored. What it forbids can't be known, so nothing is allowed meanwhile.
            self.fault = f"policy {document.tenant}/{document.name} can't be read: {error}"
        else:
            ids = (statement_id(document, position, len(parsed)) for position in range(len(parsed)))
            self.statements = list(zip(ids, parsed, strict=True))
        self.attributes = mentioned(statement for _, statement in self.statements)


class _Sliced:
    """The policies that count for one tenant: the roles, those of the platform, its own."""

    def __init__(self, roles: Sequence[tuple[str, Statement]], documents: Sequence[_Parsed]) -> None:
        self.statements = [*roles, *(statement for one in documents for statement in one.statements)]
        self.broken = [one.fault for one in documents if one.fault is not None]
        self.index = Index([statement for _, statement in self.statements])
        self.attributes = frozenset[str]().union(*(one.attributes for one in documents))


def statement_id(document: PolicyDocument, position: int, count: int) -> str:
    """What one policy of a document is called in reasons: `tenant/name`, with its number where there are several."""
    base = f"{document.tenant}/{document.name}"
    return base if count == 1 else f"{base}#{position + 1}"
