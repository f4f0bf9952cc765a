"""Only data under the operator's roots can be named by a request."""

from __future__ import annotations

import pytest

from server.errors import BadDataset
from server.registry.datasets import resolve_uri

ROOTS = ("/data", "s3://bucket/images/")


@pytest.mark.parametrize(
    ("uri", "plain"),
    [
        ("/data", "/data"),
        ("/data/week/9.npz", "/data/week/9.npz"),
        ("file:///data/x.npz", "/data/x.npz"),
        ("/data/a/../b", "/data/b"),
        ("s3://bucket/images/x.parquet", "s3://bucket/images/x.parquet"),
    ],
)
def test_inside(uri, plain):
    assert resolve_uri(uri, ROOTS) == plain


@pytest.mark.parametrize(
    "uri",
    [
        "/etc/passwd",
        "/data/../etc/passwd",
        "/database",
        "s3://bucket/other",
        "s3://bucket/images/../other",
        "s3://bucket/images/%2e%2e/other",
        "s3://bucket.evil/images/x",
        "simplecache::s3://bucket/images/x",
        "https://evil.example/x",
        "http://169.254.169.254/",
    ],
)
def test_outside(uri):
    with pytest.raises(BadDataset) as caught:
        resolve_uri(uri, ROOTS)
    assert caught.value.code == "dataset.not_allowed"


def test_a_link_does_not_lead_out(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    (root / "link").symlink_to("/etc")
    with pytest.raises(BadDataset):
        resolve_uri(str(root / "link" / "passwd"), [str(root)])
