"""Documents in words, for whoever is about to sign them: all of it, and what changes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence

from securesystemslib.signer import Key, SSlibKey
from tuf.api.metadata import Role, Root, TargetFile, Targets

from server.trust.ceremony import Document, Standing
from server.trust.keys import WORDS
from server.trust.keys import fingerprint as key_fingerprint
from shared.metadata import MODEL_FIELD, PACKAGES


def in_words(document: Document, before: Root | Targets | None) -> list[str]:
    """What a signature under the document says."""
    if isinstance(document.signed, Root):
        lines = _root(before if isinstance(before, Root) else None, document.signed)
    else:
        lines = _targets(before if isinstance(before, Targets) else None, document.signed)
    lines.append(f"fingerprint {fingerprint(document)}: the same for everybody who signs it")
    return list(map(_plain, lines))


def fingerprint(document: Document) -> str:
    """Of what is signed, whoever has signed already: to be compared by voice."""
    digits = hashlib.sha256(document.signed_bytes).hexdigest()[:16]
    return " ".join(digits[at : at + 4] for at in range(0, 16, 4))


def standing_in_words(parts: Iterable[Standing]) -> list[str]:
    """Who has signed, and who may still."""
    lines = [
        f"{part.what}: {len(part.signed)} of {part.threshold} have signed ({_list(part.signed)})"
        + ("" if part.is_met else f"; waited for: {_list(part.unsigned)}")
        for part in parts
    ]
    return list(map(_plain, lines))


def _root(before: Root | None, after: Root) -> list[str]:
    lines = [_head(f"root {after.version}", before.version if before else None, after)]
    for name, role in after.roles.items():
        last = before.roles[name] if before else None
        lines.append(_role(WORDS[name], role, last))
        lines += _new_keys(role, last, after.keys)
    return lines


def _targets(before: Targets | None, after: Targets) -> list[str]:
    model = after.unrecognized_fields.get(MODEL_FIELD)
    what = f"released versions of {model}, document {after.version}"
    lines = [_head(what, before.version if before else None, after)]
    known = before.targets if before else {}
    for path, file in sorted(after.targets.items(), key=lambda item: _number(item[0])):
        new = "" if path not in known else " (as before)" if known[path] == file else " (CHANGED)"
        lines.append(f"  version {_number(path)}{new or ' (new)'}: {_weights(file)}")
    gone = sorted(map(_number, known.keys() - after.targets.keys()))
    if gone:
        lines.append(f"  no longer: {', '.join(map(str, gone))}")
    role, last = _packages(after), _packages(before)
    if role is not None and after.delegations is not None:
        lines.append(_role(WORDS[PACKAGES], role, last))
        lines += _new_keys(role, last, after.delegations.keys)
    return lines


def _head(what: str, before: int | None, after: Root | Targets) -> str:
    follows = f"follows {before}" if before is not None else "the first"
    return f"{what} ({follows}), holds until {after.expires:%Y-%m-%d}"


def _role(word: str, role: Role, before: Role | None) -> str:
    known = before.keyids if before else role.keyids
    keys = ", ".join(k if k in known else f"{k} (new)" for k in role.keyids)
    gone = [keyid for keyid in known if keyid not in role.keyids]
    threshold = f"{role.threshold} of {len(role.keyids)}"
    if before and before.threshold != role.threshold:
        threshold += f" (was {before.threshold})"
    return f"  {word:9} {threshold}: {keys}" + (f"; no longer: {_list(gone)}" if gone else "")


def _new_keys(role: Role, before: Role | None, keys: Mapping[str, Key]) -> list[str]:
    """The whole fingerprints of keys that nobody has signed for before."""
    known = before.keyids if before else []
    new = [keys.get(keyid) for keyid in role.keyids if keyid not in known]
    return [f"    {k.keyid}: {key_fingerprint(k)}" for k in new if isinstance(k, SSlibKey)]


def _packages(targets: Targets | None) -> Role | None:
    roles = targets.delegations.roles if targets and targets.delegations else None
    return (roles or {}).get(PACKAGES)


def _weights(file: TargetFile) -> str:
    return f"weights {file.hashes.get('sha256', '?')}, {file.length} bytes"


def _number(path: str) -> int:
    digits = path.removeprefix("v/")
    return int(digits) if digits.isdigit() else 0


def _plain(line: str) -> str:
    """What a terminal shows as it is: a draft comes from somewhere, and could paint over it."""
    return "".join(letter if letter.isprintable() else "?" for letter in line)


def _list(names: Sequence[str]) -> str:
    return ", ".join(names) or "nobody"
