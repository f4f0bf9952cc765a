"""The folder of a ceremony: keys, the documents that are in use, and drafts that await signatures.

    root-1a2b3c4d.pem ...      see `server.trust.keys`
    1.root.json, 2.root.json   the roots, from the first one on: what this folder trusts
    digits.targets.json        the newest `targets` of a model that this folder has seen published
    3.root.draft.json          what is being signed; digits.targets.draft.json likewise

A draft is gone once the server shows what it said; it is put aside as `....draft.overtaken` where
the server shows something else of that version or a later one. So a ceremony that was cut off goes
on from its drafts, and what is replayed to the folder is noticed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from tuf.api.metadata import Metadata, Root, Targets

from server.errors import BadCeremony
from server.trust.ceremony import (
    PURPOSE_FIELD,
    Document,
    is_release,
    purpose_of,
    roots_in_line,
)
from server.trust.documents import read
from server.trust.written import replace, write_new
from shared.metadata import MODEL_FIELD

_ROOT = re.compile(r"([1-9]\d{0,5})\.root\.json")
_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")  # shared.wire.ModelName
_DRAFT = re.compile(r"(?:([1-9]\d{0,5})\.root|([A-Za-z0-9][A-Za-z0-9._-]*)\.targets)\.draft\.json")


class Desk:
    """One folder. Raises BadCeremony, BadTrust, and OSError of the disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def roots(self) -> list[Metadata[Root]]:
        """All roots from the first on, each verified by the one before. May be empty."""
        found = {int(m[1]): p for p in self._files() if (m := _ROOT.fullmatch(p.name))}
        return roots_in_line((found[n].read_bytes() for n in sorted(found)), None)

    def root(self) -> Metadata[Root]:
        """The newest root. Raises BadCeremony `no_root`."""
        roots = self.roots()
        if not roots:
            raise BadCeremony("no_root", f"{self.folder} has no 1.root.json")
        return roots[-1]

    def learn_roots(self, contents: Iterable[bytes]) -> list[int]:
        """Keep the roots that follow those known; their versions. Raises as a client would."""
        new = roots_in_line(contents, self.root())
        for root in new:
            self._keep(f"{root.signed.version}.root.json", root.to_bytes())
            self._drop(self.root_draft(root.signed.version), root)
        return [root.signed.version for root in new]

    def targets(self, model: str) -> Metadata[Targets] | None:
        """What this folder has seen published last of a model."""
        path = self._of_model(model, "targets.json")
        return read(path.read_bytes(), Targets) if path.is_file() else None

    def learn_targets(self, model: str, content: bytes) -> Metadata[Targets]:
        """Keep what the server shows as the newest of a model, once it is believed.

        Raises BadCeremony `other_model`, `forged`, `older`.
        """
        shown, root = read(content, Targets), self.root()
        named = shown.signed.unrecognized_fields.get(MODEL_FIELD)
        if named != model:
            raise BadCeremony("other_model", f"the document is of {named!r}, not of {model!r}")
        if not is_release(root.signed, shown):
            told = f"targets {shown.signed.version} of {model}, by no release key of this root"
            raise BadCeremony("forged", told)
        last = self.targets(model)
        if last is not None and shown.signed.version < last.signed.version:
            told = f"targets {shown.signed.version} of {model}; known: {last.signed.version}"
            raise BadCeremony("older", told)
        if last is None or shown.signed.version > last.signed.version:
            replace(self._of_model(model, "targets.json"), content)
        self._drop(self.targets_draft(model), shown)
        return shown

    def root_draft(self, version: int) -> Path:
        """Where the draft of a root lies, or would."""
        return self.folder / f"{version}.root.draft.json"

    def targets_draft(self, model: str) -> Path:
        """Where the draft of a model's `targets` lies, or would."""
        return self._of_model(model, "targets.draft.json")

    def drafts(self) -> list[Path]:
        """All drafts, those of roots first."""
        found = [path for path in self._files() if _DRAFT.fullmatch(path.name)]
        return sorted(found, key=lambda path: (".root." not in path.name, path.name))

    def draft(self, path: Path, purpose: str, make: Callable[[], Document]) -> None:
        """Make the draft, unless the same command has made it before and was cut off.

        Raises BadCeremony `other_draft` where it is there for something else.
        """
        if path.is_file():
            found = purpose_of(load(path))
            if found != purpose:
                raise BadCeremony("other_draft", f"{path.name} awaits signatures: weft {found}")
            return
        document = make()
        document.unrecognized_fields[PURPOSE_FIELD] = purpose
        save(path, document)

    def _of_model(self, model: str, ending: str) -> Path:
        """A file of this folder, whatever a server or a draft calls the model."""
        if not _MODEL.fullmatch(model):
            raise BadCeremony("other_model", f"{model!r} is no name of a model")
        return self.folder / f"{model}.{ending}"

    def _files(self) -> list[Path]:
        return sorted(self.folder.iterdir()) if self.folder.is_dir() else []

    def _keep(self, name: str, content: bytes) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with suppress(FileExistsError):  # a server that keeps its own roots there was first
            write_new(self.folder / name, content, 0o644)

    def _drop(self, path: Path, published: Document) -> None:
        """Put a draft away that was published, or that another document came before."""
        if not path.is_file():
            return
        draft = load(path)
        if draft.signed_bytes == published.signed_bytes:
            path.unlink()
        elif draft.signed.version <= published.signed.version:
            path.replace(path.with_suffix(".overtaken"))


def load(path: Path) -> Document:
    """The document of a file. Raises BadCeremony `no_draft`, BadTrust `malformed`."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BadCeremony("no_draft", f"{path}: {error.strerror}") from error
    document: Document
    document = read(content, Root) if ".root." in path.name else read(content, Targets)
    return document


def save(path: Path, document: Document) -> None:
    """Write a draft, in place of itself with fewer signatures."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    replace(path, document.to_bytes())
