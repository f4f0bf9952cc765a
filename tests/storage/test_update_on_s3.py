"""A whole update from a server whose blobs lie in a bucket."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edge_agent.agent.loop import running
from edge_agent.config import Config
from shared.weights import WeightsReader


@pytest.fixture
def server(serve: Any, s3: Any) -> Any:
    return serve(**s3.settings(), blobs_cache_bytes=0)


def _config(server: Any, folder: Path) -> Config:
    return Config.model_validate(
        {
            "server": server.url,
            "name": "lamp",
            "state_dir": folder,
            "enrolment_token": server.enrolment_token,
            "models": {"m": {}},
        }
    )


def test_a_device_is_updated(fleet: Any, tmp_path: Path) -> None:
    order = {"model": "m", "target": 2, "method": {"id": "full"}}
    built = fleet.call("POST", "/api/v1/packages", json=order)
    fleet.roll_out(2)
    config = _config(fleet.server, tmp_path / "device")
    with running(config, lambda _: None) as agent:
        assert agent.round()[1] == []
    with WeightsReader(config.state_dir / "models" / "m" / "current") as weights:
        assert weights.digest().hex() == fleet.digests[1]
    (device,) = fleet.call("GET", "/api/v1/devices")["items"]
    assert device["models"][0]["weights_digest"] == fleet.digests[1]
    assert built["state"] == "published"
    assert not (fleet.server.settings.data_dir / "blobs").exists()


def test_a_download_is_resumed(fleet: Any) -> None:
    content = bytes(range(256)) * 4096
    sha = fleet.publish(1, 2, content)
    device = fleet.enrol(fleet.digests[0])
    etag = f'"{sha}"'

    def download(**headers: str) -> Any:
        asked = {name.replace("_", "-"): value for name, value in headers.items()}
        url = f"/device/v1/packages/{sha}"
        return fleet.server.client.get(url, headers=device["headers"] | asked)

    whole = download()
    assert (whole.status_code, whole.headers["etag"], whole.content) == (200, etag, content)
    rest = download(Range="bytes=1000000-", If_Range=etag)
    assert (rest.status_code, rest.content) == (206, content[1_000_000:])
    changed = download(Range="bytes=1000000-", If_Range='"another"')
    assert (changed.status_code, len(changed.content)) == (200, len(content))
