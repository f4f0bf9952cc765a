"""What a device does not take, that it is unchanged then, and what the operator sees of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any, TypeAlias

import pytest
import zstandard

from edge_agent.journal import Target
from shared.metadata import MAX_BYTES, PACKAGES, ROOT, SNAPSHOT, TARGETS, TIMESTAMP, MetadataFile
from tests.edge_agent.plane import MODEL
from tests.edge_agent.trusting import DAY, METADATA, Field
from tests.signing import Repository, signer

EVIL = "e" * 64
Files: TypeAlias = dict[str, MetadataFile]


@pytest.fixture
def field(bench: Any, plane: Any, shelf: Any) -> Field:
    return Field(bench, plane, shelf)


def older_metadata(field: Field) -> None:
    """What the device had before it saw something newer is given to it again."""
    old = field.files()
    field.repository.publish(TARGETS)
    field.want(1, None)
    assert field.round() == []
    field.plane.reports.clear()
    field.answers(old)


def passed_off(field: Field, old: Files, *roles: str) -> Files:
    """Old files under the names of the new ones."""
    new = field.files()
    return {role: replace(old[role], version=new[role].version) for role in roles}


def old_targets_among_new_metadata(field: Field) -> None:
    old = field.files()
    field.repository.publish(TARGETS)
    field.answers(field.files() | passed_off(field, old, TARGETS))


def an_old_snapshot_under_a_new_timestamp(field: Field) -> None:
    old = field.files()
    field.repository.publish(TARGETS)
    field.answers(field.files() | passed_off(field, old, SNAPSHOT, TARGETS))


def half_an_answer(field: Field) -> None:
    field.repository.publish(TARGETS)
    field.answers({TIMESTAMP: field.files()[TIMESTAMP]})


def a_server_that_never_renews(field: Field) -> None:
    field.repository.lifetimes[TIMESTAMP] = 0
    field.repository.publish(TIMESTAMP)


def targets_that_have_expired(field: Field) -> None:
    field.repository.lifetimes[TARGETS] = -1
    field.repository.publish(TARGETS)


def a_root_that_has_expired(field: Field) -> None:
    field.plane.roots.now -= timedelta(days=731)
    field.plane.roots.publish()


def a_stolen_key_after_its_rotation(field: Field) -> None:
    """The thief signs with what was the timestamp's key until the operator replaced it."""
    stolen = field.plane.roots.keys[TIMESTAMP]
    field.plane.roots.rotate(TIMESTAMP, "fresh")
    field.plane.roots.keys[TIMESTAMP] = stolen
    field.repository.publish(TIMESTAMP)


def targets_by_the_online_keys(field: Field) -> None:
    field.plane.roots.keys[TARGETS] = [signer(PACKAGES)]
    field.repository.publish(TARGETS)


def a_root_by_somebody_else(field: Field) -> None:
    field.plane.roots.signers = [signer("nobody")]
    field.plane.roots.rotate(ROOT, "nobody")


def metadata_of_another_model(field: Field) -> None:
    other = Repository("faces", field.plane.roots, now=field.repository.now + timedelta(days=1))
    other.release(2, field.shelf.digests[2])
    field.answers(other.files)


def a_timestamp_without_end(field: Field) -> None:
    field.repository.edit[TIMESTAMP] = lambda signed: signed.unrecognized_fields.update(
        x="x" * 20000
    )
    field.repository.publish(TIMESTAMP)


def bytes_that_are_no_metadata(field: Field) -> None:
    field.plane.forged = lambda _: b"<html>Log in, please</html>"


def a_frame_that_unpacks_to_too_much(field: Field) -> None:
    field.plane.forged = lambda _: b"\0" + zstandard.compress(bytes(MAX_BYTES + 1))


def metadata_that_say_nothing(field: Field) -> None:
    field.plane.forged = lambda _: b"\0" + zstandard.compress(b"timestamp 9999999999 2\n{}")


#: The device waits for something better: nobody knows who has answered, or why.
NOT_PROVEN: list[tuple[Callable[[Field], None], str]] = [
    (older_metadata, "trust.older_metadata"),
    (old_targets_among_new_metadata, "trust.older_metadata"),
    (an_old_snapshot_under_a_new_timestamp, "trust.older_metadata"),
    (half_an_answer, "trust.incomplete"),
    (a_server_that_never_renews, "trust.expired"),
    (targets_that_have_expired, "trust.expired"),
    (a_root_that_has_expired, "trust.expired"),
    (a_stolen_key_after_its_rotation, "trust.unsigned"),
    (targets_by_the_online_keys, "trust.unsigned"),
    (a_root_by_somebody_else, "trust.unsigned"),
    (metadata_of_another_model, "trust.other_model"),
    (a_timestamp_without_end, "trust.too_much_metadata"),
    (bytes_that_are_no_metadata, "metadata.malformed"),
    (a_frame_that_unpacks_to_too_much, "metadata.malformed"),
    (metadata_that_say_nothing, "trust.bad_metadata"),
]


@pytest.mark.parametrize(("attack", "code"), NOT_PROVEN, ids=lambda x: getattr(x, "__name__", x))
def test_what_is_not_proven_puts_the_update_off(
    field: Field, attack: Callable[[Field], None], code: str, caplog: pytest.LogCaptureFixture
) -> None:
    attack(field)
    before = field.state()
    field.want(2, "xor-12")
    assert field.round() == [code]
    assert field.state() == before
    assert field.plane.asked("/device/v1/packages") == []
    (report,) = field.plane.reports
    assert (report.result, report.state, report.error.code) == (
        "failed_no_change",
        "deferred",
        code,
    )
    assert (field.shown()["state"], field.shown()["error"]["code"]) == ("deferred", code)
    assert code in caplog.text
    assert field.round() == [code]
    assert len(field.plane.reports) == 1  # the server hears of it once


def a_version_that_nobody_released(field: Field) -> None:
    del field.repository.versions[2]
    field.repository.publish(TARGETS)


def a_version_that_was_withdrawn(field: Field) -> None:
    field.repository.withdraw(2)


def weights_under_the_number_of_a_release(field: Field) -> None:
    """The server's own keys sign a package to weights that nobody released: it has them all."""
    offer = field.plane.models[MODEL].package
    field.repository.offer(offer.sha256, offer.size, offer.base_digest, EVIL, offer.method)
    wanted = field.plane.models[MODEL].model_copy(update={"weights_digest": EVIL})
    field.plane.models[MODEL] = wanted


def a_package_to_weights_that_nobody_released(field: Field) -> None:
    offer = field.plane.models[MODEL].package
    field.repository.offer(offer.sha256, offer.size, offer.base_digest, EVIL, offer.method)


def a_release_by_the_delegated_role(field: Field) -> None:
    """`packages` may list packages only, whatever else its key signs."""
    del field.repository.versions[2]
    field.repository.publish(TARGETS)
    role = field.repository.edit
    role[PACKAGES] = lambda signed: signed.targets.update(listed)
    listed = {"v/2": next(iter(_targets(field).values()))}
    field.repository.publish(PACKAGES)


def _targets(field: Field) -> Any:
    from tuf.api.metadata import Metadata

    return Metadata.from_bytes(field.files()[TARGETS].content).signed.targets


def a_detour_by_weights_that_nobody_released(field: Field) -> None:
    wanted = field.plane.models[MODEL]
    there, back = (
        field.shelf.wanted(version, name).package
        for version, name in ((2, "xor-12"), (3, "xor-23"))
    )
    detour = [there, back.model_copy(update={"base_digest": EVIL})]
    field.repository.offer(there.sha256, there.size, there.base_digest, EVIL, "xor")
    field.repository.offer(back.sha256, back.size, EVIL, field.shelf.digests[3], "xor")
    chain = {"version": 3, "weights_digest": field.shelf.digests[3], "package": None}
    field.plane.models[MODEL] = wanted.model_copy(update=chain | {"chain": detour})


def a_package_that_is_not_listed(field: Field) -> None:
    field.repository.packages.clear()
    field.repository.publish(PACKAGES)


def a_package_of_another_length(field: Field) -> None:
    wanted = field.plane.models[MODEL]
    longer = wanted.package.model_copy(update={"size": wanted.package.size + 1})
    field.plane.models[MODEL] = wanted.model_copy(update={"package": longer})


def a_package_from_another_base(field: Field) -> None:
    offer = field.plane.models[MODEL].package
    field.repository.offer(offer.sha256, offer.size, EVIL, field.shelf.digests[2], offer.method)


NOT_RELEASED: list[tuple[Callable[[Field], None], str]] = [
    (a_version_that_nobody_released, "trust.not_released"),
    (a_version_that_was_withdrawn, "trust.not_released"),
    (weights_under_the_number_of_a_release, "trust.not_released"),
    (a_release_by_the_delegated_role, "trust.not_released"),
    (a_detour_by_weights_that_nobody_released, "trust.not_released"),
    (a_package_to_weights_that_nobody_released, "trust.wrong_listing"),
    (a_package_that_is_not_listed, "trust.not_listed"),
    (a_package_of_another_length, "trust.wrong_listing"),
    (a_package_from_another_base, "trust.wrong_listing"),
]


@pytest.mark.parametrize(("attack", "code"), NOT_RELEASED, ids=lambda x: getattr(x, "__name__", x))
def test_what_is_not_released_fails(
    field: Field, attack: Callable[[Field], None], code: str
) -> None:
    field.want(2, "xor-12")
    attack(field)
    before = field.state()
    assert field.round() == [code]
    assert field.state() == before
    assert field.plane.asked("/device/v1/packages") == []
    (report,) = field.plane.reports
    assert (report.result, report.state, report.error.code) == ("failed_no_change", "failed", code)
    assert field.shown()["last_update"]["error"]["code"] == code
    assert field.round() == []  # it is settled, for this attempt


def test_a_slot_with_a_withdrawn_version_is_not_switched_to(field: Field) -> None:
    field.want(2, "xor-12")
    assert field.round() == []
    before = field.state()
    field.want(1, None, rollback=True)
    field.repository.withdraw(1)
    assert field.round() == ["trust.not_released"]
    assert field.state() == before


def test_an_older_version_needs_to_be_meant(field: Field) -> None:
    field.want(2, "xor-12")
    assert field.round() == []
    for package in ("full-1", None):
        before = field.state()
        field.want(1, package)
        assert field.round() == ["trust.older_version"]
        assert field.state() == before
    field.want(1, None, rollback=True)
    assert field.round() == []
    assert field.bench.in_use() == field.shelf.digests[1]


def test_delivered_weights_have_the_number_under_which_they_are_released(
    bench: Any, plane: Any, shelf: Any
) -> None:
    bench.settings["models"][MODEL]["initial"] = str(shelf.weights[3])
    plane.offer(shelf, shelf.wanted(2, "full-2", rollback=False))
    assert bench.round() == ["trust.older_version"]
    assert bench.in_use() == shelf.digests[3]


def test_an_endless_answer_is_cut_off(field: Field) -> None:
    def endless(handler: Any) -> bool:
        if METADATA not in handler.path:
            return False
        handler.send_response(200)
        handler.end_headers()
        while True:
            handler.wfile.write(bytes(1 << 16))  # until the device hangs up

    before = field.state()
    field.plane.faults = [endless]
    field.want(2, "xor-12")
    with field.bench.running() as agent:
        assert field.on(agent) == ["metadata.malformed"]
        assert agent.traffic_bytes < 3 * MAX_BYTES
    assert field.state() == before


def test_what_came_before_the_attack_is_kept_and_the_update_goes_on_after_it(field: Field) -> None:
    half_an_answer(field)
    field.want(2, "xor-12")
    assert field.round() == ["trust.incomplete"]
    field.plane.forged = None
    with field.bench.running() as agent:
        agent.clock.wait(DAY / 24)
        assert field.on(agent) == []
    assert field.bench.in_use() == field.shelf.digests[2]


def test_a_target_that_an_older_agent_began_is_held_against_releases(field: Field) -> None:
    """It verified nothing; the package may be here already."""
    field.want(2, "xor-12")
    field.repository.withdraw(2)
    journal = field.bench.folder / "journal.json"
    with field.bench.running() as agent:
        update = agent.updates[MODEL]
        update.begin(Target.of(field.plane.models[MODEL]))
        update.enter("downloading", fill="b")
    assert "downloading" in journal.read_text()
    assert field.round() == ["trust.not_released"]
    assert field.bench.in_use() == field.shelf.digests[1]
