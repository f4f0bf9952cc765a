"""What a device and the server say to each other: the device plane `/device/v1`.

    POST /device/v1/enrol             Enrolment -> 201 Enrolled   (with an enrolment token; signed)
    GET  /device/v1/desired           -> 200 Desired, or 304      (bearer; If-None-Match)
    GET  /device/v1/metadata/<model>  -> 200 bytes, or 204        (bearer; see `shared.metadata`)
         ?root=3&timestamp=17&...     versions held of each role, those not held left out
    GET  /device/v1/packages/<sha256> -> 200 or 206 bytes         (bearer; Range, If-Range)
    POST /device/v1/reports           Report -> 200 {}            (bearer; signed)
    POST /device/v1/token             Renewal -> 200 Renewed      (signed)

What is signed carries `SIGNATURE_HEADER`: base64 of the Ed25519 signature over `signed_bytes` by
the device's key.

Errors are `Problem` (RFC 9457, application/problem+json). The wire changes only by addition: each
end ignores fields that it does not know, and never changes the meaning of those it does.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

WIRE_VERSION = 1

ENROL_PATH = "/device/v1/enrol"
DESIRED_PATH = "/device/v1/desired"
PACKAGES_PATH = "/device/v1/packages"
REPORTS_PATH = "/device/v1/reports"
METADATA_PATH = "/device/v1/metadata"
TOKEN_PATH = "/device/v1/token"  # noqa: S105 - a path

#: Most packages that one update may take, one after the other.
MAX_CHAIN = 8

#: Most attributes of a device.
MAX_ATTRIBUTES = 64

#: Seconds until the next poll; sent with 200 and 304, outside the ETag.
POLL_INTERVAL_HEADER = "Weft-Poll-Interval"

#: Carries the device's signature of a request's body.
SIGNATURE_HEADER = "Weft-Signature"

_VISIBLE = r"^[!-~]{8,512}$"

#: SHA-256 as 64 lower-case hex digits: weights digests and package files.
Digest: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
#: The first 4 bytes of the SHA-256 of one tensor.
TensorDigest: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{8}$")]
#: A raw Ed25519 public key as 64 hex digits.
PublicKey: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
#: Also the name of a directory on the device, hence the narrow alphabet.
ModelName: TypeAlias = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
]
#: Text in one line, for people.
OneLine: TypeAlias = Annotated[
    str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")
]
AttributeName: TypeAlias = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9._-]{0,63}$")
]
#: What a device says of itself, for operators to see and to filter by.
Attributes: TypeAlias = Annotated[dict[AttributeName, OneLine], Field(max_length=MAX_ATTRIBUTES)]
#: A secret that travels in a header: visible ASCII.
Token: TypeAlias = Annotated[str, StringConstraints(pattern=_VISIBLE)]


def check_token(secret: str) -> None:
    """Raise ValueError, without the secret, where it could not travel as a Token."""
    if not re.fullmatch(_VISIBLE, secret):
        raise ValueError("must have 8 to 512 visible ASCII characters")


def signed_bytes(what: Literal["enrol", "report", "token"], device_id: str, body: bytes) -> bytes:
    """What a device signs; of an enrolment `device_id` is empty, as none is known yet."""
    return f"weft {what}/1\n{device_id}\n".encode() + body


def pinned(secret: str, root_sha256: str) -> str:
    """An enrolment token as it is handed out: the secret, and which first root to believe."""
    return f"{secret}.{root_sha256}"


def split_pinned(token: str) -> tuple[str, str | None]:
    """The secret of an enrolment token, which alone is sent, and the SHA-256 of the first root."""
    secret, _, root = token.rpartition(".")
    return (secret, root) if re.fullmatch(r"[0-9a-f]{64}", root) and secret else (token, None)


#: What the device is left with, said by the one that looked.
Result: TypeAlias = Literal[
    "committed", "failed_no_change", "failed_rolled_back", "failed_unrecovered"
]
#: The states of an update on a device (design: device life).
State: TypeAlias = Literal[
    "idle",
    "offered",
    "downloading",
    "downloaded",
    "reconstituting",
    "staged",
    "swapping",
    "verifying",
    "committed",
    "rolled_back",
    "failed",
    "deferred",
    "aborted",
    "superseded",
]
#: `unverified`: nothing on the device could judge the new weights.
Health: TypeAlias = Literal["passed", "unverified", "failed"]


class Message(BaseModel):
    """The root of all messages: immutable, and deaf to fields of a later version."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Capabilities(Message):
    """What a device can decode and hold; the server offers nothing else."""

    wire: int = WIRE_VERSION
    agent: str = Field(default="", description="Version of the agent program.")
    formats: list[int] = Field(default_factory=list, description="Package formats it reads.")
    methods: dict[str, int] = Field(default_factory=dict, description="Method id -> version.")
    coders: list[str] = Field(default_factory=list, description="Coder ids, version included.")
    dtypes: list[str] = Field(default_factory=list, description="safetensors dtypes it can change.")
    free_bytes: int | None = Field(default=None, ge=0, description="Free space for slots.")
    chain: int = Field(default=1, ge=1, description="Most packages it applies in one update.")
    in_place: list[ModelName] = Field(
        default_factory=list,
        description="Models of which it changes the one file: to weights of the same tensors only.",
    )


class HeldModel(Message):
    """What a device holds of one model."""

    slots: list[Digest] = Field(default_factory=list, description="Weights digests it could use.")
    current: Digest | None = Field(default=None, description="The one in use.")


class Enrolment(Message):
    """A device asks to be known. `token` is the enrolment token, not yet its own."""

    name: OneLine
    token: Token = Field(description="The secret alone, without the root's SHA-256.")
    key: PublicKey | None = Field(
        default=None, description="The device's Ed25519 key, which signs this request."
    )
    models: dict[ModelName, HeldModel] = Field(default_factory=dict)
    capabilities: Capabilities = Field(default_factory=Capabilities)
    attributes: Attributes = Field(default_factory=dict)


class Enrolled(Message):
    """The device's identity, and the bearer token of all its later requests."""

    device_id: str = Field(min_length=1, max_length=64)
    token: Token
    roots: list[str] = Field(
        default_factory=list, description="All root metadata, from version 1 on, as they are."
    )
    pending: bool = Field(default=False, description="An operator has still to accept the device.")
    counter: int = Field(
        default=0, ge=0, description="Of the last report by this key that the server knows."
    )


class Renewal(Message):
    """A device asks for another bearer token; its signature is all that it has to show."""

    device_id: str = Field(min_length=1, max_length=64)
    counter: int = Field(ge=1, description="Higher than that of any renewal before.")


class Renewed(Message):
    """The token of all later requests; the one before is worth nothing from now on."""

    token: Token


class PackageOffer(Message):
    """Where the package is and what it must turn out to be."""

    sha256: Digest
    size: int = Field(gt=0, description="Bytes of the file.")
    url: str = Field(
        pattern=r"^/device/v1/packages/[0-9a-f]{64}$", description="Path on the same server."
    )
    base_digest: Digest | None = Field(description="Weights it starts from; null: from nothing.")
    method: str


class DesiredModel(Message):
    """The version that a device should run.

    `package` and `chain` null: the device holds the version in a slot and only switches to it.
    `chain`: several packages, each of which starts from what the one before it gives; only for a
    device that reported `Capabilities.chain` of at least so many. Then `package` is null.
    `held` set: do nothing now, for this reason.
    """

    model: ModelName
    version: int = Field(ge=1)
    weights_digest: Digest
    assignment: int | None = Field(default=None, description="Repeated in the report.")
    attempt: int = Field(
        default=1, ge=1, description="Of the assignment: another one asks for the same once more."
    )
    package: PackageOffer | None = None
    chain: list[PackageOffer] | None = None
    held: str | None = None
    rollback: bool = Field(
        default=False, description="It is meant that the version is an older one than that in use."
    )

    @property
    def packages(self) -> list[PackageOffer]:
        """All packages that lead to the version, in order: none, one, or a chain."""
        return [self.package] if self.package else self.chain or []


class Desired(Message):
    """The answer for all models of a device; its ETag is the device's generation."""

    models: list[DesiredModel] = Field(default_factory=list)
    report: bool = Field(
        default=False,
        description="Tell what you hold of each model: a report in state `idle`, of no assignment.",
    )
    held: str | None = Field(
        default=None,
        description="Why the device as such is offered nothing, and no report of it is taken: "
        "`not_accepted`, `cloned`.",
    )


class Fault(Message):
    """The error that ended an update."""

    code: str = Field(pattern=r"^[a-z0-9_]+(\.[a-z0-9_]+)+$", max_length=100)
    message: str = Field(max_length=2000)


class Report(Message):
    """How one update ended.

    One in state `idle`, without an assignment, is about no update: it tells what the device holds,
    and what else has changed of it (`capabilities`, `attributes`).

    The same `counter` with the same bytes gets the same answer; a lower one, or the same with
    other bytes, is refused (`409`).
    """

    counter: int = Field(ge=1)
    model: ModelName
    assignment: int | None = None
    result: Result
    state: State
    weights_digest: Digest | None = Field(description="What the slot in use holds now.")
    slots: list[Digest] = Field(default_factory=list, description="Everything the device holds.")
    version: int | None = Field(default=None, description="The version that was asked for.")
    error: Fault | None = None
    tensor_digests: dict[str, TensorDigest] | None = Field(
        default=None, description="Of the wrong result, by which the server finds the tensor."
    )
    seconds: float = Field(default=0.0, ge=0, description="From the offer to the end.")
    health: Health = "unverified"
    capabilities: Capabilities | None = None
    attributes: Attributes | None = Field(
        default=None, description="All of them, in place of those told before."
    )


class Problem(Message):
    """RFC 9457 problem+json, with the stable dotted `code` and what to do about it."""

    type: str = "about:blank"
    title: str = ""
    status: int = 0
    detail: str = ""
    code: str = ""
    todo: str = ""
    request_id: str = ""
