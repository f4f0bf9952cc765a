"""What the routes of trust take and give."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from shared.wire import ModelName

#: A root lists a few keys; `targets` a few hundred bytes a version.
MAX_DOCUMENT = 256 * 1024

SHA256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
KEY = {"role": "root", "keyid": "1a2b3c4d", "threshold": 1, "on_server": True}
DOCUMENT = {"model": None, "role": "root", "version": 1, "expires_at": "2028-03-01T10:00:00Z"}


def _example(value: dict[str, Any]) -> ConfigDict:
    return ConfigDict(json_schema_extra={"examples": [value]}, extra="forbid")


class SigningKeyOut(BaseModel):
    """A key that may sign for a role."""

    model_config = _example(KEY)

    role: str = Field(description="root, release, packages, snapshot or timestamp.")
    keyid: str
    threshold: int = Field(description="How many keys of the role must sign.")
    on_server: bool = Field(description="Whether the private key lies in the server's folder.")


class DocumentOut(BaseModel):
    """A signed document in use."""

    model_config = _example(DOCUMENT)

    model: str | None = Field(description="Null: the root, which all models share.")
    role: str = Field(description="root, targets, packages, snapshot or timestamp.")
    version: int
    expires_at: datetime


class TrustOut(BaseModel):
    """Who signs what, and until when it holds."""

    model_config = _example(
        {
            "root_version": 1,
            "root_sha256": SHA256,
            "can_release": True,
            "keys": [KEY],
            "documents": [DOCUMENT],
        }
    )

    root_version: int
    root_sha256: str = Field(description="Of the first root, which enrolment tokens carry.")
    can_release: bool = Field(description="Whether the release key lies on the server.")
    keys: list[SigningKeyOut]
    documents: list[DocumentOut]


class RootOut(BaseModel):
    """One version of the root metadata, as it was published."""

    model_config = _example({"version": 1, "content": '{"signatures":[],"signed":{}}'})

    version: int
    content: str


class TargetsOut(BaseModel):
    """What is released of a model: the document in use, and the next one, not signed."""

    model_config = _example({"content": None, "draft": '{"signatures":[],"signed":{}}'})

    content: str | None = Field(description="Null: nothing was released yet.")
    draft: str | None = Field(description="With the versions that were asked for listed.")


class PublicationIn(BaseModel):
    """Documents that were signed elsewhere, published together or not at all."""

    model_config = _example(
        {
            "root": None,
            "targets": {"digits": '{"signatures":[],"signed":{}}'},
        }
    )

    root: str | None = Field(None, max_length=MAX_DOCUMENT)
    targets: dict[ModelName, Annotated[str, Field(max_length=MAX_DOCUMENT)]] = Field(
        default_factory=dict, description="By model; each at most 256 KiB."
    )
