"""What every test stands on: fixed seeds, no network but loopback (see pyproject.toml).

`WEFT_TEST_DATABASE=postgres` has the tests that use a database, and no others, run on a private
PostgreSQL instead of SQLite files.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# Tests are many and small, and run side by side: threads of BLAS would only wait for each other.
# Before numpy is imported; the processes that tests start inherit it.
for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")
# No test may depend on the configuration of whoever runs it.
os.environ["XDG_CONFIG_HOME"] = os.devnull

import hypothesis  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402

# The same examples in every run: a failure seen in CI is the failure seen at the desk.
hypothesis.settings.register_profile("weft", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("weft")


#: Where the private PostgreSQL of this process listens.
POSTGRES_URL = "WEFT_TEST_POSTGRES_URL"


def pytest_configure(config: pytest.Config) -> None:
    """Start PostgreSQL where it is wanted: one for each process that runs tests.

    Readers of events wait for all open transactions of a PostgreSQL, whatever their database: tests
    that run side by side on one would wait for each other.
    """
    if os.environ.get("WEFT_TEST_DATABASE", "sqlite") != "postgres":
        return
    from tests.postgres import NoPostgres, Postgres, remove_left_over

    if getattr(config.option, "numprocesses", None) and not hasattr(config, "workerinput"):
        config.add_cleanup(remove_left_over)  # of processes that could not end in order
        return
    try:
        postgres = Postgres()
    except NoPostgres as error:
        raise pytest.UsageError(str(error)) from error
    config.add_cleanup(postgres.stop)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends it in order, as Ctrl-C does
    os.environ[POSTGRES_URL] = postgres.url


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """On PostgreSQL run what uses the database, and on either leave out what is the other's."""
    on_postgres = POSTGRES_URL in os.environ
    if on_postgres:
        others = [item for item in items if "cluster" not in getattr(item, "fixturenames", ())]
        items[:] = [item for item in items if item not in others]
        config.hook.pytest_deselected(items=others)
    for item in items:
        if marker := item.get_closest_marker("sqlite" if on_postgres else "postgres"):
            item.add_marker(pytest.mark.skip(reason=f"only with {marker.name}: {marker.args[0]}"))


@pytest.fixture(autouse=True)
def _fixed_seeds() -> None:
    random.seed(0)
    np.random.seed(0)  # for libraries that draw from the global generator
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture(scope="session")
def checkout() -> Path:
    """The root of the working tree."""
    return Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def migrated_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated, empty SQLite file, to be copied."""
    from server.db import migrate

    path = tmp_path_factory.mktemp("migrated") / "weft.db"
    migrate(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def cluster() -> Iterator[Any]:
    """The private PostgreSQL, or None where the tests run on SQLite."""
    if POSTGRES_URL not in os.environ:
        yield None
        return
    from tests.postgres import Cluster

    cluster = Cluster(os.environ[POSTGRES_URL])
    yield cluster
    cluster.close()


class Databases:
    """Gives each data folder its own database, of the kind that the tests run on."""

    def __init__(self, migrated: Path, cluster: Any) -> None:
        self._migrated, self._cluster = migrated, cluster
        self._made: dict[Path, str] = {}

    def url(self, folder: Path, migrated: bool = True) -> str:
        """URL of the folder's database, made at the first call: an empty one, migrated or not."""
        if folder not in self._made:
            self._made[folder] = self._make(folder, migrated)
        return self._made[folder]

    def environment(self, folder: Path) -> dict[str, str]:
        """The variables by which a process that is started finds the folder's database."""
        return {"WEFT_DATABASE_URL": self.url(folder, migrated=False)} if self._cluster else {}

    def _make(self, folder: Path, migrated: bool) -> str:
        if self._cluster:
            return str(self._cluster.copy() if migrated else self._cluster.create())
        path = folder / "weft.db"
        if migrated and not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(self._migrated, path)
        return f"sqlite:///{path}"

    def drop(self) -> None:
        for url in self._made.values() if self._cluster else ():
            self._cluster.drop(url)


@pytest.fixture
def databases(migrated_database: Path, cluster: Any) -> Iterator[Databases]:
    """Makes databases for data folders of the test."""
    databases = Databases(migrated_database, cluster)
    yield databases
    databases.drop()


@pytest.fixture(scope="session")
def lasting_databases(migrated_database: Path, cluster: Any) -> Iterator[Databases]:
    """Makes databases for data folders that several tests share."""
    databases = Databases(migrated_database, cluster)
    yield databases
    databases.drop()


@pytest.fixture
def database_url(databases: Databases, tmp_path: Path) -> str:
    """URL of a migrated, empty database."""
    return databases.url(tmp_path / "database")


@pytest.fixture
def empty_database_url(databases: Databases, tmp_path: Path) -> str:
    """URL of a database without any table."""
    return databases.url(tmp_path / "unmigrated", migrated=False)


class LiveServer:
    """The real app behind real HTTP on loopback, in a thread; `client` speaks to it."""

    def __init__(self, **settings: object) -> None:
        import httpx
        import uvicorn

        from server.api.protocol import BoundedHttp, forwarding
        from server.app import create_app
        from server.settings import load_settings

        self.settings = load_settings(**settings)
        self.app = create_app(self.settings)
        # Named as TCP, else asyncio leaves Nagle's algorithm on: 40 ms for each answer.
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.listen()
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        config = uvicorn.Config(
            self.app,
            http=BoundedHttp,
            log_config=None,
            timeout_graceful_shutdown=5,
            **forwarding(self.settings),
        )
        self._uvicorn = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._run)
        # verify=False: no TLS here, and loading the certificates takes a tenth of a second.
        self.client = httpx.Client(base_url=self.url, timeout=60, verify=False)

    def start(self) -> LiveServer:
        """Raises what the app's start has raised, at once."""
        import httpx

        self._thread.start()
        # The socket listens already: the first request waits until the app has started.
        try:
            self.client.get("/healthz").raise_for_status()
        except httpx.TransportError as lost:
            self.stop()
            failed = getattr(self.app.state, "start_error", None)
            raise failed or RuntimeError("the app did not start; its log says why") from lost
        return self

    @property
    def enrolment_token(self) -> str:
        """The token as it is handed out, with the root that a device is to believe."""
        from server.db import reading
        from shared.wire import pinned

        secret = self.settings.enrolment_token
        assert secret is not None
        with reading(self.app.state.engine) as session:
            root = self.app.state.trust.root_sha256(session)
        return pinned(secret.get_secret_value(), root)

    def _run(self) -> None:
        try:
            self._uvicorn.run([self._socket])
        except SystemExit:
            pass  # so it ends where the app does not start
        finally:
            self._socket.close()  # else whoever has connected waits for its time-out

    def stop(self) -> None:
        self.client.close()
        self._uvicorn.should_exit = True
        self._thread.join()
        self._socket.close()


@pytest.fixture
def serve(tmp_path: Path, databases: Databases) -> Iterator[Callable[..., LiveServer]]:
    """Starts servers on a data folder of the test; settings by keyword."""
    running: list[LiveServer] = []

    def start(**settings: object) -> LiveServer:
        chosen = {"data_dir": tmp_path / "server", "enrolment_token": "enrol-me-please"} | settings
        chosen.setdefault("require_keys", "admin_key" in chosen)  # most tests are of other matters
        chosen.setdefault("database_url", databases.url(Path(str(chosen["data_dir"]))))
        running.append(LiveServer(**chosen).start())
        return running[-1]

    yield start
    for server in running:
        server.stop()


@pytest.fixture
def server(serve: Callable[..., LiveServer]) -> LiveServer:
    """A server with the default settings."""
    return serve()


@pytest.fixture
def weights_file(tmp_path: Path) -> Callable[..., Path]:
    """Writes small weights files; arrays by keyword replace or add tensors (None drops one)."""
    from shared.weights import write_weights

    def write(seed: int = 0, **changes: np.ndarray | None) -> Path:
        draw = np.random.default_rng(seed)
        arrays: dict[str, np.ndarray | None] = {
            "conv.weight": draw.normal(size=(4, 3, 3, 3)).astype(np.float32),
            "norm.weight": np.ones(4, np.float32),
            "norm.running_mean": draw.normal(size=4).astype(np.float32),
            "norm.running_var": np.full(4, 0.5, np.float32),
        } | {name.replace("__", "."): array for name, array in changes.items()}
        path = tmp_path / f"weights-{len(list(tmp_path.iterdir()))}.safetensors"
        write_weights(path, {n: ("F32", a) for n, a in arrays.items() if a is not None})
        return path

    return write


class Fleet:
    """A model `m` with two versions and a published package between them, and its devices."""

    def __init__(self, server: LiveServer, files: list[Path]) -> None:
        self.server, self.files, self._counters = server, files, dict[str, int]()
        self.call("POST", "/api/v1/models", json={"name": "m"})
        self.digests = [self._upload(path) for path in files]

    def call(self, method: str, path: str, status: int | None = None, **request: object) -> Any:
        answer = self.server.client.request(method, path, **request)
        assert answer.status_code == status or (status is None and answer.is_success), answer.text
        return answer.json()

    def _upload(self, path: Path) -> str:
        headers = {"Content-Type": "application/octet-stream"}
        url = "/api/v1/models/m/versions"
        answer = self.call("POST", url, content=path.read_bytes(), headers=headers)
        return str(answer["weights_digest"])

    def publish(self, base: int | None, target: int, content: bytes) -> str:
        """Put a package into store and table, whatever its bytes; its SHA-256."""
        from sqlalchemy import select

        from server.db import writing
        from server.tables import Package, Version

        state = self.server.app.state
        with state.blobs.receive() as incoming:
            incoming.write(content)
            kept = incoming.keep()
        with writing(state.engine) as session:
            ids = {v.number: v.id for v in session.scalars(select(Version))}
            package = Package(
                model_id=1,
                base_version_id=ids[base] if base else None,
                target_version_id=ids[target],
                method="ka" if base else "full",
                sha256=kept.sha256,
                size_bytes=kept.size,
                state="published",
            )
            session.add(package)
        return str(kept.sha256)

    def enrol(
        self, current: str | None = None, name: str = "cam", key: Any = None, **more: object
    ) -> Any:
        """A new device; its answer, with its `key`, and `headers` to speak as it."""
        from tests.device_keys import DeviceKey

        key = key or DeviceKey()
        held = {"slots": [current] if current else [], "current": current}
        body = {"name": name, "token": "enrol-me-please", "models": {"m": held}} | more
        device = self.call("POST", "/device/v1/enrol", **key.enrolment(body))
        headers = {"Authorization": f"Bearer {device['token']}"}
        return device | {"headers": headers, "key": key}

    def release(self, *versions: int) -> None:
        """Sign versions without deploying them: chains pass through these only."""
        for version in versions:
            self.call("POST", f"/api/v1/models/m/versions/{version}/release")

    def roll_out(self, version: int) -> Any:
        return self.call("POST", "/api/v1/rollouts", json={"model": "m", "version": version})

    def poll(self, device: Any, etag: str | None = None) -> Any:
        """The whole HTTP answer."""
        headers = device["headers"] | ({"If-None-Match": etag} if etag else {})
        return self.server.client.get("/device/v1/desired", headers=headers)

    def offer(self, device: Any) -> Any:
        """What the device is to run, with what goes without saying."""
        from shared.wire import DesiredModel

        (model,) = self.poll(device).json()["models"]
        return DesiredModel.model_validate(model).model_dump()

    def report(self, device: Any, assignment: int | None, digest: str, **changes: object) -> Any:
        """The whole HTTP answer to a report that all went well, or `changes` to it."""
        counter = self._counters[device["device_id"]] = (
            self._counters.get(device["device_id"], 0) + 1
        )
        body = {
            "counter": counter,
            "model": "m",
            "assignment": assignment,
            "result": "committed",
            "state": "committed",
            "weights_digest": digest,
            "slots": [digest],
        } | changes
        signed = device["key"].signed("report", device["device_id"], body, device["headers"])
        return self.server.client.post("/device/v1/reports", **signed)


@pytest.fixture
def fleet(server: LiveServer, weights_file: Callable[..., Path]) -> Fleet:
    return Fleet(server, [weights_file(0), weights_file(1)])
