"""What a push may change in a protected bare repository: everything that the rules want to know, read and judged.

It runs within the hook, while Git still keeps what was pushed in quarantine.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from chimera.adapters.git.bare import Rules, followed_by, load_rules, run_git
from chimera.adapters.git.definitions import CommitFiles
from chimera.adapters.git.objects import FileChange, Objects
from chimera.adapters.git.sshsig import verify
from chimera.agents.intake import take_in
from chimera.delivery.git.definitions import MARK, may_define, placed, read, touched
from chimera.delivery.git.errors import BareRefused, GitError, MalformedObject
from chimera.delivery.git.protection import (
    APPROVALS,
    CHECKS,
    HEADS,
    MOST_COMMITS,
    TAGS,
    MadeCommit,
    Proposal,
    Refusal,
    Update,
    Word,
    judge_following,
    judge_proposal,
    judge_reference,
    judge_word,
)
from chimera.delivery.git.signers import read_signers

NOTHING = "0" * 40


def receive(folder: Path, lines: Sequence[str], environ: Mapping[str, str]) -> list[Refusal]:
    """Why the references of a push (`old new ref`) may not change so; nothing where they may."""
    rules = load_rules(folder)
    updates = [_update(line) for line in lines]
    own = folder / "objects"
    quarantine = environ.get("GIT_OBJECT_DIRECTORY")
    objects = Objects(Path(quarantine) if quarantine else own, [own] if quarantine else [])
    try:
        return list(_Push(folder, rules, objects).judge(updates))
    finally:
        objects.close()


class _Push:
    def __init__(self, folder: Path, rules: Rules, objects: Objects) -> None:
        self._folder = folder
        self._policy = rules.policy
        self._signers = read_signers(rules.signers, file="signers")
        self._objects = objects

    def judge(self, updates: Sequence[Update]) -> Iterator[Refusal]:
        protected = HEADS + self._policy.branch
        follows = self._followed(protected)
        for update in updates:
            # Names first: only those that pass are asked after.
            refused = judge_reference(self._policy, update)
            if refused is None:
                refused = judge_following(self._policy, update, {**follows, **self._followed(update.ref)})
            if refused is None and update.new is not None and _is_word(update.ref):
                before = None if update.old is None else self._word(update.ref, update.old)
                refused = judge_word(self._policy, before, self._word(update.ref, update.new))
            if refused is not None:
                yield refused
            elif update.ref == protected:
                yield from judge_proposal(self._policy, self._proposal(update))

    def _followed(self, ref: str) -> dict[str, str]:
        target = followed_by(self._folder, ref)
        return {} if target is None else {ref: target}

    def _proposal(self, update: Update) -> Proposal:
        assert update.new is not None
        kind, _ = self._objects.read(update.new)
        if kind != "commit":
            return Proposal(update=update, is_commit=False, forward=False)
        forward = update.old is None or self._is_ancestor(update.old, update.new)
        if not forward:
            return Proposal(update=update, is_commit=True, forward=False)
        names = self._new_commits(update)
        refs = self._refs()
        wanted = {f"{TAGS}{kind}/{update.new}/" for kind in (APPROVALS, CHECKS)}
        return Proposal(
            update=update,
            is_commit=True,
            forward=True,
            branches=tuple(
                ref for ref, name in refs.items() if name == update.new and ref.startswith(HEADS) and ref != update.ref
            ),
            commits=tuple(self._made(name) for name in names[:MOST_COMMITS]),
            more=len(names) > MOST_COMMITS,
            words=tuple(
                self._word(ref, name) for ref, name in refs.items() if any(ref.startswith(start) for start in wanted)
            ),
            faults=tuple(self._faults(update)),
        )

    def _made(self, name: str) -> MadeCommit:
        commit = self._objects.commit(name)
        signature, signer = verify(commit.payload, commit.signature, self._signers)
        return MadeCommit(
            id=name,
            subject=commit.subject,
            merge=len(commit.parents) > 1,
            author=commit.author,
            committer=commit.committer,
            co_authors=commit.co_authors,
            signed_off=commit.signed_off,
            signature=signature,
            signer=signer,
        )

    def _word(self, ref: str, name: str) -> Word:
        _, commit, who = [*ref.removeprefix(TAGS).split("/", 2), "", ""][:3]
        try:
            tag = self._objects.tag(name)
        except MalformedObject as error:
            return Word(ref=ref, commit=commit, name=who, word="", at=0, signer=None, problem=error.detail)
        signature, signer = verify(tag.payload, tag.signature, self._signers)
        problem = ""
        if tag.name != ref.removeprefix(TAGS):
            problem = f"it was signed as the tag {tag.name[:100]!r}"
        elif (tag.target, tag.target_kind) != (commit, "commit"):
            problem = "it names another commit than its name does"
        elif signature != "good":
            problem = "its signature is missing, doesn't fit, or is by a key that is not in the list of signers"
        return Word(ref=ref, commit=commit, name=who, word=tag.word, at=tag.at, signer=signer, problem=problem)

    def _faults(self, update: Update) -> Iterator[str]:
        """What validation finds in definitions that the push changes."""
        folder, new = self._policy.validate, update.new
        assert new is not None
        if not folder:
            return
        try:
            before, after = (None if name is None else self._tree(name, folder) for name in (update.old, new))
            if after is None:
                return
            changed = list(self._objects.changes(before, after, folder))
            files = CommitFiles(self._objects, self._objects.commit(new).tree)
            folders = self._folders(files, changed, after)
            for path in sorted(touched([one.path for one in changed], folders)):
                yield from _faults_at(files, path)
        except GitError as error:
            yield error.detail

    def _folders(self, files: CommitFiles, changed: Sequence[FileChange], tree: str) -> dict[str, list[str]]:
        """Folders of code that a change may be in, with the definitions that name them.

        A definition stands above its code, so only folders on the way up are searched.
        """
        folder = self._policy.validate
        above = {parent for one in changed if not self._defines(one) for parent in _above(one.path, folder)}
        found: dict[str, list[str]] = {}
        for path, entry in self._objects.files(tree, folder) if above else ():
            if path.rpartition("/")[0] in above and entry.is_file:
                for one in files.definitions([(path, entry)]):
                    for definition in read(one)[0]:
                        if definition.folder is not None:
                            found.setdefault(definition.folder, []).append(path)
        return found

    def _defines(self, change: FileChange) -> bool:
        if change.after is None or not change.after.is_file or not may_define(change.path):
            return False
        return MARK in self._objects.read(change.after.id, "blob")[1]

    def _tree(self, commit: str, folder: str) -> str | None:
        entry = self._objects.at(self._objects.commit(commit).tree, folder)
        if entry is None:
            return None
        if not entry.is_folder:
            raise GitError(f"{folder} is a {entry.kind} and no folder", next_step="put a folder there")
        return entry.id

    def _is_ancestor(self, old: str, new: str) -> bool:
        return run_git(self._folder, "merge-base", "--is-ancestor", old, new, codes=(0, 1)).returncode == 0

    def _new_commits(self, update: Update) -> list[str]:
        assert update.new is not None
        base = [f"^{update.old}"] if update.old is not None else []
        return run_git(self._folder, "rev-list", f"--max-count={MOST_COMMITS + 1}", update.new, *base).text.split()

    def _refs(self) -> dict[str, str]:
        rows = run_git(self._folder, "for-each-ref", "--format=%(refname) %(objectname)").lines
        return dict(row.split(" ", 1) for row in rows)


def _faults_at(files: CommitFiles, path: str) -> Iterator[str]:
    entry = files.at(path)
    for found in files.definitions([(path, entry)] if entry is not None else []):
        definitions, faults = read(found)
        yield from map(str, faults)
        for one in definitions:
            bundles = {one.packed.digest: one.packed.bundle} if one.packed else {}
            taken = take_in([one.item], tenant="default", first=0, bundles=bundles)
            wrong = [fault for fault in taken.results[0].faults if fault.severity == "error"]
            yield from (str(placed(fault, one.first_line)) for fault in wrong)


def _above(path: str, top: str) -> Iterator[str]:
    """The folders above the one that a file is in, up to `top`."""
    here = path.rpartition("/")[0]
    while here.startswith(f"{top}/"):
        here = here.rpartition("/")[0]
        yield here


def _is_word(ref: str) -> bool:
    return ref.startswith((f"{TAGS}{APPROVALS}/", f"{TAGS}{CHECKS}/"))


def _update(line: str) -> Update:
    old, new, ref = line.rstrip("\n").split(" ", 2)
    if len(old) != 40 or len(new) != 40:
        raise BareRefused("repositories with SHA-256 are not supported", next_step="use one with SHA-1")
    return Update(ref=ref, old=None if old == NOTHING else old, new=None if new == NOTHING else new)
