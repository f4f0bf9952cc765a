"""Datasets over HTTP."""

from __future__ import annotations

import numpy as np
import pytest


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    images = np.arange(4 * 8 * 8, dtype=np.uint8).reshape(4, 8, 8)
    np.savez(folder / "good.npz", images=images, labels=np.array([0, 1, 2, 1]))
    (folder / "bad.npz").write_bytes(b"junk")
    return folder


def test_a_dataset_is_opened_and_fingerprinted(serve, data):
    server = serve(dataset_roots=str(data))
    body = {"name": "good", "uri": str(data / "good.npz")}
    answer = server.client.post("/api/v1/datasets", json=body)
    assert answer.status_code == 201, answer.text
    dataset = answer.json()
    assert (dataset["rows"], len(dataset["classes"])) == (4, 3)
    assert len(dataset["fingerprint"]) == 64
    assert server.client.get("/api/v1/datasets/good").json() == dataset
    assert server.client.get("/api/v1/datasets").json()["items"] == [dataset]
    again = server.client.post("/api/v1/datasets", json=body)
    assert (again.status_code, again.json()["code"]) == (409, "dataset.exists")


@pytest.mark.parametrize(
    ("name", "status", "code"),
    [
        ("bad.npz", 422, "dataset.unreadable"),
        ("none.npz", 404, "dataset.not_found"),
        ("../x.npz", 422, "dataset.not_allowed"),
    ],
)
def test_bad_data_are_told(serve, data, name, status, code):
    server = serve(dataset_roots=str(data))
    body = {"name": "d", "uri": f"{data}/{name}"}
    answer = server.client.post("/api/v1/datasets", json=body)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
