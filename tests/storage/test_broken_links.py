"""What a link to the service that breaks does to those who read and write."""

from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from server.errors import BlobError
from server.settings import Settings
from server.storage import open_store, s3
from shared.errors import WeftError
from tests.bucket import CREDENTIALS, REGION

DATA = b"a blob that is cut" * 1000
SHA = hashlib.sha256(DATA).hexdigest()


class Cutting:
    """Answers HEAD in full, and GET with half of what it promises."""

    def __init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self.answer_put = b"HTTP/1.1 507 Insufficient Storage"
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            with connection:
                self._answer(connection)

    def _answer(self, connection: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            data = connection.recv(65536)
            if not data:
                return
            head += data
        lines = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(DATA)
        if head.startswith(b"PUT"):
            connection.sendall(self.answer_put + b"\r\nContent-Length: 0\r\n\r\n")
        elif head.startswith(b"GET"):
            connection.sendall(lines + DATA[: len(DATA) // 2])
        else:
            connection.sendall(lines)

    def stop(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join()


@pytest.fixture
def cutting() -> Iterator[Cutting]:
    service = Cutting()
    yield service
    service.stop()


@pytest.fixture
def store(cutting: Cutting, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(s3, "ATTEMPTS", 1)
    settings = Settings(
        data_dir=tmp_path,
        blobs="s3://bucket",
        blobs_endpoint=cutting.url,
        blobs_region=REGION,
    )
    return open_store(settings)


def test_half_a_blob_is_never_taken_for_the_whole(store: Any, tmp_path: Any) -> None:
    with pytest.raises(BlobError) as caught, store.local(SHA):
        pass
    assert caught.value.code == "blob.unreachable"
    assert list((tmp_path / "cache").rglob("*/*")) == []


def test_a_full_service_is_told(store: Any, tmp_path: Any) -> None:
    (tmp_path / "source").write_bytes(DATA)
    with pytest.raises(WeftError) as caught:
        store.put(tmp_path / "source")
    assert caught.value.code == "storage.no_space"
    assert list((tmp_path / "cache").rglob("*/*")) == []
