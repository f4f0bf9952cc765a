"""The messages of the device plane: what they accept, refuse and ignore."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from shared import wire

A = "a" * 64
B = "b" * 64

DESIRED = {
    "models": [
        {
            "model": "digits",
            "version": 2,
            "weights_digest": A,
            "assignment": 7,
            "package": {
                "sha256": B,
                "size": 4096,
                "url": f"/device/v1/packages/{B}",
                "base_digest": None,
                "method": "full",
            },
            "held": None,
        }
    ]
}


def offer(**changes: object) -> dict[str, object]:
    package: dict[str, object] = dict(DESIRED["models"][0]["package"])  # type: ignore[call-overload]
    return {**package, **changes}


def report(**changes: object) -> dict[str, object]:
    given: dict[str, object] = {
        "counter": 1,
        "model": "digits",
        "assignment": None,
        "result": "committed",
        "state": "committed",
        "weights_digest": A,
        "slots": [A],
    }
    return {**given, **changes}


def test_desired_survives_the_wire() -> None:
    desired = wire.Desired.model_validate(DESIRED)
    assert wire.Desired.model_validate_json(desired.model_dump_json()) == desired
    assert desired.models[0].package is not None
    assert desired.models[0].package.base_digest is None


def test_fields_of_a_later_version_are_ignored() -> None:
    desired = wire.Desired.model_validate({**DESIRED, "later": {"more": 1}})
    assert desired == wire.Desired.model_validate(DESIRED)


@pytest.mark.parametrize("name", ["", "..", ".hidden", "a/b", "a\\b", "a" * 65, "ab\n", "é"])
def test_a_model_name_is_a_safe_directory_name(name: str) -> None:
    with pytest.raises(ValidationError):
        wire.Report.model_validate(report(model=name))


@pytest.mark.parametrize("digest", ["", "A" * 64, "a" * 63, "a" * 65, "g" * 64, "a" * 64 + "\n"])
def test_digests_are_64_lower_case_hex_digits(digest: str) -> None:
    with pytest.raises(ValidationError):
        wire.Report.model_validate(report(weights_digest=digest))


@pytest.mark.parametrize(
    "changes",
    [
        {"url": f"https://elsewhere.example/device/v1/packages/{B}"},
        {"url": "//elsewhere.example/x"},
        {"url": f"/device/v1/packages/../{B}"},
        {"size": 0},
        {"size": -1},
    ],
)
def test_an_offer_cannot_lead_elsewhere_or_be_empty(changes: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        wire.PackageOffer.model_validate(offer(**changes))


@pytest.mark.parametrize(
    "changes", [{"result": "ok"}, {"state": "done"}, {"counter": 0}, {"health": "fine"}]
)
def test_reports_use_only_the_agreed_words(changes: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        wire.Report.model_validate(report(**changes))


def test_a_report_may_leave_out_what_is_optional() -> None:
    parsed = wire.Report.model_validate(report())
    assert (parsed.health, parsed.error, parsed.seconds) == ("unverified", None, 0.0)


def test_a_device_that_says_nothing_of_itself_can_decode_nothing() -> None:
    enrolment = wire.Enrolment.model_validate({"name": "lamp", "token": "secret-token"})
    assert enrolment.capabilities.methods == {}
    assert enrolment.models == {}


@pytest.mark.parametrize("token", ["short", "with space in", "line\nbreak-token", "ünïcode-token"])
def test_tokens_fit_in_a_header(token: str) -> None:
    with pytest.raises(ValidationError):
        wire.Enrolled.model_validate({"device_id": "d", "token": token})


@pytest.mark.parametrize(
    "attributes",
    [
        {"9lives": "yes"},
        {"": "yes"},
        {"a b": "yes"},
        {"a" * 65: "yes"},
        {"gpu": ""},
        {"gpu": "x" * 201},
        {"gpu": "two\nlines"},
        {"gpu": "\x00"},
        {"gpu": 3},
        {f"a{number}": "x" for number in range(wire.MAX_ATTRIBUTES + 1)},
    ],
)
def test_attributes_are_few_short_lines(attributes: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        wire.Enrolment.model_validate(
            {"name": "cam", "token": "12345678", "attributes": attributes}
        )
    with pytest.raises(ValidationError):
        wire.Report.model_validate(report(attributes=attributes))


def test_attributes_may_be_left_out() -> None:
    enrolment = wire.Enrolment.model_validate({"name": "cam", "token": "12345678"})
    assert enrolment.attributes == {}
    assert wire.Report.model_validate(report()).attributes is None
    told = wire.Report.model_validate(report(attributes={"gpu": "Orin, 8 GB"}))
    assert told.attributes == {"gpu": "Orin, 8 GB"}
