"""Attacks by whoever has stolen keys that sign metadata."""

from __future__ import annotations

from typing import Any

from shared.metadata import PACKAGES, ROOT, SNAPSHOT, TARGETS, TIMESTAMP, MetadataFile
from tests.attacks.attack import Act, attack, forgets, nothing
from tests.attacks.victim import Victim, digest
from tests.signing import Repository, signer

TUF = "tuf.ngclient._internal.trusted_metadata_set:TrustedMetadataSet"
CLIENT = "edge_agent.trust.client"


@attack(
    "repository",
    refused="trust.older_metadata",
    told="targets.json version",
    defence=f"{CLIENT}:Client._load_local_metadata",
    off=forgets,
)
def a_snapshot_that_hides_a_withdrawal(victim: Victim) -> Act:
    """Whoever has stolen the online keys signs a new snapshot of older targets."""
    before = victim.files()[TARGETS]
    victim.repository.withdraw(2)
    assert victim.install(2).code == "trust.not_released"
    victim.repository.files[TARGETS] = before
    victim.repository.publish(SNAPSHOT)
    return lambda: victim.install_by(list(victim.files().values()), 2)


@attack(
    "repository",
    refused="trust.unsigned",
    told="timestamp",
    defence=f"{CLIENT}:Client._load_root",
    off=nothing,
)
def a_stolen_online_key_that_was_replaced(victim: Victim) -> Act:
    """Whoever has stolen the key of timestamps signs on, far ahead (fast-forward)."""
    stolen = victim.roots.keys[TIMESTAMP]
    victim.roots.rotate(TIMESTAMP, "a new key")
    root = MetadataFile(ROOT, 2, victim.roots.files[1])
    forger = Repository(victim.repository.model, victim.roots, versions=victim.repository.versions)
    forger.packages, forger.files = victim.repository.packages, victim.files()
    victim.roots.keys[TIMESTAMP] = stolen
    forger.edit[TIMESTAMP] = lambda signed: setattr(signed, "version", 1 << 38)
    forger.publish(TARGETS, PACKAGES)
    return lambda: victim.install_by([root, *forger.files.values()], 2)


@attack(
    "repository",
    refused="trust.not_released",
    told="is not released, or not any more",
    defence="edge_agent.trust.released:check_version",
    off=nothing,
    then="trust.not_released",
)
def weights_that_nobody_released(victim: Victim) -> Act:
    """Whoever has stolen all online keys lists a package of weights of their own."""
    victim.list("to 9", digest(1), digest(9))
    return lambda: victim.install(9)


@attack(
    "repository",
    refused="trust.not_released",
    told="is no released version",
    defence="edge_agent.trust.released:check_result",
    off=nothing,
)
def a_detour_by_weights_that_nobody_released(victim: Victim) -> Act:
    """Whoever has stolen all online keys leads a device by their weights to released ones."""
    victim.list("away", digest(1), digest("evil"))
    victim.list("back", digest("evil"), digest(2))
    away, back = victim.offered("away", digest(1)), victim.offered("back", digest("evil"))
    return lambda: victim.install(2, packages=[away, back])


@attack(
    "repository",
    refused="trust.unsigned",
    told="targets",
    defence="tuf.api.metadata:Root.verify_delegate",
    off=nothing,
)
def targets_signed_by_online_keys(victim: Victim) -> Act:
    """Whoever has stolen all online keys signs a release with them."""
    victim.roots.keys[TARGETS] = [signer(PACKAGES)]
    victim.repository.release(9, digest(9))
    victim.list("to 9", digest(1), digest(9))
    return lambda: victim.install(9)


@attack(
    "repository",
    refused="trust.unsigned",
    told="root",
    defence="tuf.api.metadata:Root.verify_delegate",
    off=nothing,
)
def a_root_by_one_of_two_holders(victim: Victim) -> Act:
    """One of two people who must sign together names keys of their own."""
    victim.roots.thresholds[ROOT] = 2
    victim.roots.rotate(ROOT, "one", "two")
    assert victim.install(2).code is None
    victim.roots.thresholds[ROOT] = 1
    victim.roots.signers = [signer("one")]
    victim.roots.rotate(ROOT, "one")
    return lambda: victim.install(3)


@attack(
    "repository",
    refused="trust.too_much_metadata",
    told="more than 16384 bytes",
    defence="edge_agent.trust.verify:Answer.download_bytes",
    off=lambda answer, url, _: b"".join(answer.fetch(url)),
)
def a_timestamp_without_end(victim: Victim) -> Act:
    """Whoever has stolen the online keys signs a timestamp that fills the memory (endless data)."""

    def pad(signed: Any) -> None:
        signed.unrecognized_fields["more"] = "x" * 20_000

    victim.repository.edit[TIMESTAMP] = pad
    victim.repository.publish(TIMESTAMP)
    return lambda: victim.install(2)
