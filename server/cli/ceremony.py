"""A ceremony as a command leads it: catch up with the server, draft, show, sign, publish.

Each step can be cut off and done again: keys that were made wait in the folder until a root names
them, drafts keep their signatures, and what the server has is not sent twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from securesystemslib.signer import Signer
from tuf.api.metadata import Metadata, Root, Targets

from server.cli.client import Client
from server.cli.output import say
from server.cli.passphrases import ask_passphrase, confirm
from server.errors import BadCeremony
from server.tables import now
from server.trust.ceremony import (
    Document,
    Standing,
    finished,
    purpose_of,
    sign_with,
    standing,
)
from server.trust.desk import Desk, load, save
from server.trust.keys import KeyFile, keys_in, load_signer
from server.trust.successors import check_root, check_targets
from server.trust.wording import in_words, standing_in_words
from shared.metadata import MODEL_FIELD


@dataclass(frozen=True)
class Pending:
    """A draft, with what judges it: the root whose keys sign, and what it follows."""

    path: Path
    document: Document
    root: Root
    follows: Root | Targets | None

    @property
    def model(self) -> str | None:
        """Of `targets`; None: a root."""
        if isinstance(self.document.signed, Root):
            return None
        return str(self.document.signed.unrecognized_fields.get(MODEL_FIELD))

    @property
    def standing(self) -> list[Standing]:
        """Who has signed, and who may."""
        return standing(self.document, self.root, self._root_before)

    @property
    def lacking(self) -> list[Standing]:
        """Whose signatures are missing."""
        return [part for part in self.standing if not part.is_met]

    @property
    def waited_for(self) -> set[str]:
        """Keys by which it could get further."""
        return {keyid for part in self.lacking for keyid in part.unsigned}

    def words(self) -> list[str]:
        """What is to be signed. Raises BadCeremony where nobody should sign it."""
        if isinstance(self.document.signed, Root):
            check_root(self._root_before, self.document.signed, now())
        else:
            before = self.follows if isinstance(self.follows, Targets) else None
            check_targets(before, self.document.signed, str(self.model), now())
        told = standing_in_words(self.standing)
        return [f"{self.path.name}:", *in_words(self.document, self.follows), *told]

    def sign(self, signer: Signer) -> None:
        """Add a signature to the file."""
        if sign_with(self.document, signer, self.root, self._root_before):
            save(self.path, self.document)

    @property
    def _root_before(self) -> Root | None:
        return self.follows if isinstance(self.follows, Root) else None


class Signing:
    """Signs the drafts of a folder with the keys at hand: those in it, and in the files `also`."""

    def __init__(self, desk: Desk, yes: bool, also: Iterable[Path] = ()) -> None:
        self.desk = desk
        self._yes = yes
        self._also = list(also)
        self._signers: dict[Path, Signer] = {}

    def sign(self, paths: Sequence[Path]) -> None:
        """Show the drafts, and sign each as far as the keys at hand go.

        Raises BadCeremony `not_confirmed` and what is wrong with a draft; BadKey.
        """
        drafts = [self.pending(path) for path in paths]
        lines = [line for draft in drafts for line in draft.words()]
        if not any(self._at_hand(draft) for draft in drafts):
            return
        confirm(lines, self._yes)
        for draft in drafts:
            for file in self._at_hand(draft):
                if file.keyid in draft.waited_for:
                    draft.sign(self._load(file.path))

    def sign_alone(self, path: Path) -> dict[str, Any]:
        """Sign one draft with the keys at hand; how it stands then.

        Raises BadCeremony `wrong_key` where none of them is waited for.
        """
        draft = self.pending(path)
        if draft.lacking and not self._at_hand(draft):
            told = "; ".join(standing_in_words(draft.lacking))
            raise BadCeremony("wrong_key", f"no key of {self.desk.folder} is waited for: {told}")
        self.sign([path])
        lacking = self.lacking([path])
        return {"path": str(path), "complete": not lacking, "lacking": lacking}

    def lacking(self, paths: Sequence[Path]) -> list[str]:
        """In words, which signatures the drafts still lack; empty: none."""
        drafts = [self.pending(path) for path in paths]
        return [
            f"{draft.path.name}: {line}"
            for draft in drafts
            for line in standing_in_words(draft.lacking)
        ]

    def pending(self, path: Path) -> Pending:
        """A draft with what it follows. Raises BadCeremony `no_root`, `no_draft`; BadTrust."""
        draft = load(path)
        if isinstance(draft.signed, Root):
            roots = self.desk.roots()
            if draft.signed.version > 1 and not roots:
                raise BadCeremony("no_root", f"{self.desk.folder} has no root that it follows")
            return Pending(path, draft, draft.signed, roots[-1].signed if roots else None)
        last = self.desk.targets(str(draft.signed.unrecognized_fields.get(MODEL_FIELD)))
        root = self._root_beside(path, purpose_of(draft))
        return Pending(path, draft, root, last.signed if last else None)

    def _root_beside(self, path: Path, purpose: str) -> Root:
        """The newest root, or the draft of one that is published together with this draft."""
        newest = self.desk.root().signed
        beside = path.parent / self.desk.root_draft(newest.version + 1).name
        if beside.is_file():
            draft = load(beside)
            if purpose_of(draft) == purpose and isinstance(draft.signed, Root):
                return draft.signed
        return newest

    def _at_hand(self, draft: Pending) -> list[KeyFile]:
        """The private keys at hand that a draft waits for."""
        wanted = draft.waited_for
        named = [KeyFile("", self._load(path).public_key.keyid, path) for path in self._also]
        files = [*keys_in(self.desk.folder), *named]
        found = {file.keyid: file for file in files if file.is_private and file.keyid in wanted}
        return list(found.values())

    def _load(self, path: Path) -> Signer:
        if path not in self._signers:
            self._signers[path] = load_signer(path, ask_passphrase())
        return self._signers[path]


class Ceremony(Signing):
    """The same, with the server that publishes what is signed."""

    def __init__(self, client: Client, desk: Desk, yes: bool, also: Iterable[Path] = ()) -> None:
        super().__init__(desk, yes, also)
        self.client = client
        self.published = self._catch_up()

    def finish(self, purpose: str) -> Any:
        """Sign the drafts of a command, and publish them.

        Raises BadCeremony `incomplete` where others must sign, with whom.
        """
        paths = [path for path in self.desk.drafts() if purpose_of(load(path)) == purpose]
        self.sign(paths)
        return self.publish(paths)

    def publish_all(self) -> list[str]:
        """Publish what is signed, each command's drafts together; the commands.

        Raises BadCeremony `no_draft`, `incomplete`.
        """
        groups: dict[str, list[Path]] = {}
        for path in self.desk.drafts():
            groups.setdefault(purpose_of(load(path)), []).append(path)
        if not groups:
            raise BadCeremony("no_draft", f"nothing in {self.desk.folder} awaits to be published")
        for paths in groups.values():
            self.publish(paths)
        return list(groups)

    def publish(self, paths: Sequence[Path]) -> Any:
        """Send drafts that are one publication; the server's answer. Raises as `finish`."""
        if lacking := self.lacking(paths):
            raise BadCeremony("incomplete", "; ".join(lacking))
        body: dict[str, Any] = {"root": None, "targets": {}}
        for draft in map(self.pending, paths):
            content = finished(draft.document).decode()
            if draft.model is None:
                body["root"] = content
            else:
                body["targets"][draft.model] = content
        answer = self.client.post("/trust/publications", body)
        self.published = self._catch_up()
        return answer

    def _catch_up(self) -> dict[str, Metadata[Targets]]:
        """Learn what the server has published: roots, and the targets of each model."""
        roots = self.client.get("/trust/roots")["items"]
        learnt = self.desk.learn_roots(item["content"].encode() for item in roots)
        if learnt:
            say(f"{self.desk.folder} has learnt root {', '.join(map(str, learnt))}")
        documents = self.client.get("/trust")["documents"]
        models = {item["model"] for item in documents if item["role"] == "targets"}
        return {model: self._learn(model) for model in sorted(models)}

    def _learn(self, model: str) -> Metadata[Targets]:
        shown = self.client.get(f"/models/{quote(model, safe='')}/targets")["content"]
        return self.desk.learn_targets(model, shown.encode())
