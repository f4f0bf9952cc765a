"""The stores under test stand on a folder or on a bucket of the stand-in."""

from __future__ import annotations

from tests.bucket import s3, s3_process

__all__ = ["s3", "s3_process"]
