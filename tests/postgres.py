"""A private PostgreSQL for the tests: started in a temporary directory, on a free port, and ended.

Safety is switched off for speed: its data live no longer than the tests. PostgreSQL refuses to run
as root, so root starts it as another user.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import pwd
import re
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import psycopg

OLDEST = 14
ATTEMPTS = 5
START_SECONDS = 60
PREFIX = "weft-postgres-"

#: Nothing is kept, and the zone of the server must not matter to anyone.
OPTIONS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_connections": "300",
    "shared_buffers": "64MB",
    "autovacuum": "off",
    "timezone": "Asia/Kathmandu",
    "log_min_messages": "fatal",
}


class NoPostgres(Exception):
    """PostgreSQL cannot be found or started; the text says what to do."""


def find_binaries() -> Path:
    """The folder of `initdb` and `postgres`: of pg_config, Debian's newest, or on the PATH."""
    places: list[Path] = []
    if shutil.which("pg_config"):
        command = ["pg_config", "--bindir"]
        places.append(Path(subprocess.check_output(command, text=True).strip()))
    versions = Path("/usr/lib/postgresql").glob("*/bin")
    places += sorted(versions, key=lambda path: float(path.parent.name), reverse=True)
    on_path = shutil.which("initdb")
    places += [Path(on_path).resolve().parent] if on_path else []
    for place in places:
        if (place / "initdb").exists() and (place / "postgres").exists():
            return _new_enough(place)
    raise NoPostgres("PostgreSQL's programs are not installed: apt-get install postgresql")


def _new_enough(place: Path) -> Path:
    said = subprocess.check_output([str(place / "postgres"), "--version"], text=True)
    version = re.search(r"\d+", said)
    if version is None or int(version[0]) < OLDEST:
        raise NoPostgres(f"PostgreSQL {OLDEST} or later is needed; {place} has {said.strip()}")
    return place


class Postgres:
    """A running PostgreSQL; `url` is that of its first database."""

    def __init__(self, options: Mapping[str, str] = OPTIONS) -> None:
        self._options = options
        self._binaries = find_binaries()
        self._user = _other_user() if os.geteuid() == 0 else None
        remove_left_over()
        self._folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        self._lock = os.open(self._folder, os.O_RDONLY)
        fcntl.flock(self._lock, fcntl.LOCK_SH)
        self._process: subprocess.Popen[bytes] | None = None
        try:
            if self._user:
                shutil.chown(self._folder, self._user.pw_uid, self._user.pw_gid)
            self._run_initdb()
            self.url = self._start()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End it at once, and remove all it wrote."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)  # "fast": connections are closed
            try:
                self._process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self._process.send_signal(signal.SIGQUIT)
                self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)
        os.close(self._lock)

    def _run_initdb(self) -> None:
        words = ("--no-sync", "--auth=trust", "--username=weft", "--locale=C", "--encoding=UTF8")
        done = subprocess.run(
            [*self._as_user(), str(self._binaries / "initdb"), "-D", str(self._data), *words],
            cwd=self._folder,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise NoPostgres(f"initdb failed: {done.stderr.strip()}")

    def _start(self) -> str:
        """Start it on a free port, which another program may take first: then on another one."""
        for _ in range(ATTEMPTS):
            port = _free_port()
            with (self._folder / "log").open("wb") as log:
                self._process = subprocess.Popen(
                    [*self._as_user(dies=True), *self._command(port)],
                    cwd=self._folder,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,  # a Ctrl-C is for the tests, which end it in order
                )
            url = f"postgresql://weft@127.0.0.1:{port}/postgres"
            if self._answers(url):
                return url
        raise NoPostgres(f"postgres did not start: {(self._folder / 'log').read_text().strip()}")

    def _answers(self, url: str) -> bool:
        assert self._process is not None
        end = time.monotonic() + START_SECONDS
        while self._process.poll() is None and time.monotonic() < end:
            with contextlib.suppress(psycopg.OperationalError):
                psycopg.connect(url, connect_timeout=5).close()
                return True
            time.sleep(0.02)
        return False

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    def _command(self, port: int) -> list[str]:
        options = [
            word for name, value in self._options.items() for word in ("-c", f"{name}={value}")
        ]
        return [str(self._binaries / "postgres"), "-D", str(self._data), "-p", str(port), *options]

    def _as_user(self, dies: bool = False) -> list[str]:
        """Words that run a command as a user that PostgreSQL accepts.

        `dies`: it ends with the tests even where these are killed; Linux does that.
        """
        if not shutil.which("setpriv"):
            if self._user:
                return ["runuser", "-u", self._user.pw_name, "--"]
            return []
        words = ["--pdeathsig", "INT"] if dies else []
        if self._user:
            ids = (f"--reuid={self._user.pw_uid}", f"--regid={self._user.pw_gid}")
            words += [*ids, "--clear-groups"]
        return ["setpriv", *words, "--"] if words else []


def remove_left_over() -> None:
    """Remove the folders of tests that were killed: nobody holds their locks any more."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            lock = os.open(folder, os.O_RDONLY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if not _runs(folder / "data" / "postmaster.pid"):
                    shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)


def _runs(pid_file: Path) -> bool:
    with contextlib.suppress(OSError, ValueError, IndexError):
        os.kill(int(pid_file.read_text().splitlines()[0]), 0)
        return True
    return False


def _other_user() -> pwd.struct_passwd:
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise NoPostgres("PostgreSQL does not run as root, and no user postgres or nobody exists")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Cluster:
    """The databases of a running PostgreSQL, for one process of tests."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._admin = psycopg.connect(url, autocommit=True)

    def close(self) -> None:
        """Drop the template, and leave."""
        if "template" in self.__dict__:
            self.drop(self.template)
        self._admin.close()

    @functools.cached_property
    def template(self) -> str:
        """URL of a migrated database that nobody uses: others are copies of it."""
        from server.db import migrate

        url = self.create()
        migrate(url)
        return url

    def copy(self) -> str:
        """URL of a new, migrated, empty database."""
        return self.create(self.template)

    def create(self, template: str = "/template0") -> str:
        """URL of a new database, like the one at `template`."""
        name = f"test_{secrets.token_hex(8)}"
        of = template.rpartition("/")[2]
        # Copying files is faster than writing 7 MB through the log, where nothing is synced; older
        # releases know nothing else.
        how = "STRATEGY = FILE_COPY" if self._admin.info.server_version >= 150_000 else ""
        self._admin.execute(f"CREATE DATABASE {name} TEMPLATE {of} {how}")
        return f"{self.url.replace('postgresql:', 'postgresql+psycopg:').rpartition('/')[0]}/{name}"

    def drop(self, url: str) -> None:
        """Remove a database, whoever uses it."""
        name = url.rpartition("/")[2]
        self._admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
