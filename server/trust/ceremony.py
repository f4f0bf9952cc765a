"""Who has signed a document of a ceremony, and who has still to: drafts and their signatures.

Documents come in and go out; files are `server.trust.desk`'s, words `server.trust.wording`'s.
A successor of a root is signed by enough keys of the root before it and of itself; `targets` by
enough release keys of the newest root.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Final

from securesystemslib.signer import Signer
from tuf.api.metadata import Metadata, Root, Targets

from server.errors import BadCeremony
from server.trust.documents import (
    is_signed,
    read,
    require_signed,
)
from shared.metadata import ROOT, TARGETS

Document = Metadata[Root] | Metadata[Targets]

#: Beside the signatures of a draft, not signed: the command that made it, by which it goes on.
PURPOSE_FIELD: Final = "weft-purpose"


@dataclass(frozen=True)
class Standing:
    """How many of a list of keys have signed, and how many must."""

    what: str
    threshold: int
    signed: Sequence[str]
    unsigned: Sequence[str]

    @property
    def is_met(self) -> bool:
        """Whether enough have signed."""
        return len(self.signed) >= self.threshold


def standing(document: Document, root: Root, before: Root | None = None) -> list[Standing]:
    """Who has signed, and who else may; of a root by itself and by the one before it.

    `root`: the newest one, by whose release keys `targets` are signed; of a root itself.
    """
    if isinstance(document.signed, Root):
        judges = [(f"root {r.version}", r, ROOT) for r in (before, document.signed) if r]
    else:
        judges = [(f"release keys of root {root.version}", root, TARGETS)]
    found = []
    for what, judge, role in judges:
        told = judge.get_verification_result(role, document.signed_bytes, document.signatures)
        found.append(Standing(what, told.threshold, list(told.signed), list(told.unsigned)))
    return found


def sign_with(document: Document, signer: Signer, root: Root, before: Root | None = None) -> bool:
    """Add a signature; False where it has been there already. Raises BadCeremony `wrong_key`."""
    keyid = signer.public_key.keyid
    parts = standing(document, root, before)
    if keyid in {signed for part in parts for signed in part.signed}:
        return False
    waited_for = {unsigned for part in parts for unsigned in part.unsigned}
    if keyid not in waited_for:
        told = ", ".join(sorted(waited_for)) or "nobody"
        raise BadCeremony("wrong_key", f"{keyid} signs nothing here; waited for: {told}")
    document.sign(signer, append=True)
    return True


def roots_in_line(
    contents: Iterable[bytes], trusted: Metadata[Root] | None
) -> list[Metadata[Root]]:
    """The roots after `trusted`, each verified by the one before it, as a client does.

    Without one the first vouches for itself. Raises BadTrust `bad_signature`, `malformed` and
    BadCeremony `not_successor`.
    """
    line: list[Metadata[Root]] = []
    last = trusted
    for content in contents:
        root = read(content, Root)
        if last is not None and root.signed.version <= last.signed.version:
            continue
        wanted = last.signed.version + 1 if last else 1
        if root.signed.version != wanted:
            told = f"root {root.signed.version}, where root {wanted} is due"
            raise BadCeremony("not_successor", told)
        for judge in (last.signed if last else root.signed, root.signed):
            require_signed(judge, ROOT, root)
        line.append(root)
        last = root
    return line


def purpose_of(draft: Document) -> str:
    """The command that made a draft, such as `rotate root`."""
    told = str(draft.unrecognized_fields.get(PURPOSE_FIELD, ""))
    return "".join(filter(str.isprintable, told))[:200]


def finished(draft: Document) -> bytes:
    """A draft as it is published."""
    plain = deepcopy(draft)
    plain.unrecognized_fields.pop(PURPOSE_FIELD, None)
    return plain.to_bytes()


def is_release(root: Root, document: Metadata[Targets]) -> bool:
    """Whether enough release keys of the root have signed."""
    return is_signed(root, TARGETS, document)
