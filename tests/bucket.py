"""An S3 stand-in for the tests: a process of its own on loopback, its objects in memory."""

from __future__ import annotations

import re
import secrets
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import boto3
import pytest

#: What the programs find in their environment; the stand-in takes any.
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "a-key", "AWS_SECRET_ACCESS_KEY": "a-secret-key"}
REGION = "us-east-1"


class Service:
    """The process, and its `url` once it answers."""

    def __init__(self) -> None:
        program = "from moto.server import main; main(['-H', '127.0.0.1', '-p', '0'])"
        self._process = subprocess.Popen(
            [sys.executable, "-c", program],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._process.stderr is not None
        said = ""
        while not (found := re.search(r"Running on (http://\S+)", said)):
            line = self._process.stderr.readline()
            assert line, said
            said += line
        self.url = found[1]
        self._process.stderr.close()  # what it says of each request goes nowhere

    def client(self) -> Any:
        """The SDK's own client, which knows nothing of Weft."""
        return boto3.client(
            "s3",
            endpoint_url=self.url,
            region_name=REGION,
            aws_access_key_id="a-key",
            aws_secret_access_key="a-secret-key",
        )

    def bucket(self) -> str:
        """A new bucket."""
        name = f"test-{secrets.token_hex(8)}"
        self.client().create_bucket(Bucket=name)
        return name

    def settings(self, prefix: str = "weft") -> dict[str, str]:
        """The server's settings for a new bucket."""
        return {
            "blobs": f"s3://{self.bucket()}/{prefix}",
            "blobs_endpoint": self.url,
            "blobs_region": REGION,
        }

    def stop(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()


@pytest.fixture(scope="session")
def s3_process() -> Iterator[Service]:
    service = Service()
    yield service
    service.stop()


@pytest.fixture
def s3(s3_process: Service, monkeypatch: pytest.MonkeyPatch) -> Service:
    """The stand-in, and credentials for it in the environment."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    return s3_process
