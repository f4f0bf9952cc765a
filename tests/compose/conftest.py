"""The two files, read once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.bucket import s3, s3_process
from tests.compose.files import Stage, load_compose, load_stages

__all__ = ["s3", "s3_process"]

SECRETS = {
    "POSTGRES_PASSWORD": "f00dfeedf00dfeedf00dfeed",
    "S3_SECRET_KEY": "c0ffee00c0ffee00c0ffee00",
    "WEFT_ADMIN_KEY": "0123456789abcdef01234567",
    "WEFT_ENROLMENT_TOKEN": "89abcdef0123456789abcdef",
}


@pytest.fixture(scope="session")
def compose(checkout: Path) -> Any:
    return load_compose(checkout / "docker-compose.yml", SECRETS)


@pytest.fixture(scope="session")
def stages(checkout: Path) -> dict[str, Stage]:
    return load_stages(checkout / "Dockerfile")
