"""Only data under the operator's roots can be named by a request."""

from __future__ import annotations

import pytest

from server.errors import BadDataset
from server.registry.datasets import address_of, resolve_uri
from server.tables import Dataset

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


def test_a_link_does_not_lead_out_where_rows_are_asked_for(tmp_path):
    (tmp_path / "root").mkdir()
    (tmp_path / "secret.npz").write_bytes(b"")
    (tmp_path / "root" / "x.npz").symlink_to(tmp_path / "secret.npz")
    with pytest.raises(BadDataset):
        resolve_uri(f"{tmp_path}/root/x.npz#rows=0:1", [str(tmp_path / "root")])


def test_rows_belong_to_no_path(tmp_path):
    assert resolve_uri(f"{tmp_path}/./x.npz#rows=0:1", [str(tmp_path)]).endswith("/x.npz#rows=0:1")


@pytest.mark.parametrize("root", ["https://data.example/sets", "ftp://data.example/sets"])
def test_where_redirects_could_lead_anywhere_no_root_helps(root):
    with pytest.raises(BadDataset):
        resolve_uri(f"{root}/x.npz", [root])


def test_what_was_allowed_is_asked_again_when_it_is_opened(tmp_path):
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "x.npz").write_bytes(b"")
    roots = [str(tmp_path / "root")]
    dataset = Dataset(name="x", uri=resolve_uri(f"{tmp_path}/root/x.npz", roots))
    assert address_of(dataset, roots) == dataset.uri
    with pytest.raises(BadDataset):
        address_of(dataset, [str(tmp_path / "others")])
    (tmp_path / "root" / "x.npz").unlink()
    (tmp_path / "root" / "x.npz").symlink_to("/etc/passwd")
    with pytest.raises(BadDataset):
        address_of(dataset, roots)
