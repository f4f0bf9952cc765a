"""Files of keys: made, kept, found and loaded; what is wrong with one is said by its code."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from securesystemslib.signer import CryptoSigner, _aws_signer

from server.errors import BadKey
from server.trust import keys, passphrases, sealed

PASSPHRASE = b"correct horse battery"


@pytest.fixture(autouse=True)
def _few_rounds(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    if "slow_to_guess" not in request.node.name:
        monkeypatch.setattr(sealed, "ROUNDS", 1000)


def answer(_: str) -> bytes:
    return PASSPHRASE


def refused(code: str) -> pytest.RaisesContext[BadKey]:
    return pytest.raises(BadKey, match=rf"\[key\.{code}\]")


def verifies(signer: keys.Signer) -> bool:
    signer.public_key.verify_signature(signer.sign(b"what is signed"), b"what is signed")
    return True


def test_a_key_under_a_passphrase_is_loaded_and_signs(tmp_path: Path) -> None:
    made = keys.make_signer()
    path = keys.write_private(tmp_path / "new", "root", made, PASSPHRASE)
    assert path.name == f"root-{made.public_key.keyid}.pem"
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    loaded = keys.load_signer(path, answer)
    assert loaded.public_key == made.public_key
    assert verifies(loaded)
    assert list(path.parent.iterdir()) == [path]


def test_a_passphrase_is_slow_to_guess(tmp_path: Path) -> None:
    path = keys.write_private(tmp_path, "root", keys.make_signer(), PASSPHRASE)
    content = path.read_bytes()
    assert load_pem_private_key(content, PASSPHRASE)
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl tells the rounds")
    told = subprocess.run([openssl, "asn1parse", "-in", path], capture_output=True, text=True)
    assert f"INTEGER           :{sealed.ROUNDS:06X}" in told.stdout
    command = [openssl, "pkey", "-in", path, "-passin", f"pass:{PASSPHRASE.decode()}"]
    assert b"BEGIN PRIVATE KEY" in subprocess.run(command, capture_output=True).stdout


def test_another_passphrase_opens_nothing(tmp_path: Path) -> None:
    path = keys.write_private(tmp_path, "targets", keys.make_signer(), PASSPHRASE)
    with refused("wrong_passphrase"):
        keys.load_signer(path, lambda _: b"another passphrase")
    with refused("no_passphrase"):
        keys.load_signer(path, passphrases.NOBODY)
    assert keys.load_signer(path, answer)


def test_a_short_passphrase_makes_no_file(tmp_path: Path) -> None:
    with refused("weak_passphrase"):
        keys.write_private(tmp_path, "root", keys.make_signer(), b"short")
    assert not list(tmp_path.iterdir())


def test_a_key_without_passphrase_must_be_closed_to_others(tmp_path: Path) -> None:
    path = keys.write_private(tmp_path, "snapshot", keys.make_signer())
    assert verifies(keys.load_signer(path, passphrases.NOBODY))
    path.chmod(0o640)
    with refused("open_to_others"):
        keys.load_signer(path, passphrases.NOBODY)


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    signer = keys.make_signer()
    before = keys.write_private(tmp_path, "root", signer).read_bytes()
    with refused("exists"):
        keys.write_private(tmp_path, "root", signer, PASSPHRASE)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [before]


@pytest.mark.parametrize("content", [b"", b"no key", b"\x00\xff" * 50])
def test_what_is_no_key(tmp_path: Path, content: bytes) -> None:
    for suffix in (".pem", ".json", ".pub"):
        path = tmp_path / f"key{suffix}"
        path.write_bytes(content)
        path.chmod(0o600)
        with refused("malformed"):
            keys.load_public(path) if suffix == ".pub" else keys.load_signer(path, answer)
    with refused("not_found"):
        keys.load_signer(tmp_path / "none.pem", answer)


def test_a_key_of_another_kind(tmp_path: Path) -> None:
    path = tmp_path / "root.pem"
    path.write_bytes(CryptoSigner.generate_ecdsa().private_bytes)
    path.chmod(0o600)
    with refused("malformed"):
        keys.load_signer(path, answer)


def test_a_file_under_another_key_s_name(tmp_path: Path) -> None:
    path = keys.write_private(tmp_path, "root", keys.make_signer())
    moved = path.rename(tmp_path / "root-00000000.pem")
    with refused("other_key"):
        keys.load_signer(moved, passphrases.NOBODY)


def test_a_folder_tells_its_keys_by_role(tmp_path: Path) -> None:
    timestamp, release = keys.make_signer(), keys.make_signer()
    keys.write_private(tmp_path, "timestamp", timestamp)
    keys.write_private(tmp_path, "targets", release, PASSPHRASE)
    keys.write_public(tmp_path, "targets", release.public_key)
    (tmp_path / "notes.txt").write_text("not a key")
    found = [(file.role, file.keyid, file.is_private) for file in keys.keys_in(tmp_path)]
    mine, other = release.public_key.keyid, timestamp.public_key.keyid
    assert found == [
        ("targets", mine, True),
        ("targets", mine, False),
        ("timestamp", other, True),
    ]
    assert keys.keys_in(tmp_path / "none") == []


def test_a_public_key_comes_from_each_kind_of_file(tmp_path: Path) -> None:
    signer = keys.make_signer()
    files = [
        keys.write_private(tmp_path, "packages", signer),
        keys.write_public(tmp_path, "packages", signer.public_key),
        keys.write_reference(tmp_path, "packages", "awskms:some-id", signer.public_key),
    ]
    assert [keys.load_public(path) for path in files] == [signer.public_key] * 3


def test_a_key_that_lies_elsewhere_signs_by_its_uri(tmp_path: Path) -> None:
    far = CryptoSigner.generate_ecdsa()
    kept = tmp_path / "vault"
    kept.write_bytes(far.private_bytes)
    far.public_key.keyid = keys.short_id(far.public_key)
    path = keys.write_reference(tmp_path, "root", f"file2:{kept}", far.public_key)
    signer = keys.load_signer(path, passphrases.NOBODY)
    assert signer.public_key.keyid == path.name[5:13]
    assert verifies(signer)
    kept.unlink()
    with refused("no_signer"):
        keys.load_signer(path, passphrases.NOBODY)


@pytest.mark.parametrize("scheme", ["awskms", "gcpkms", "azurekms", "hsm", "nobody-knows-it"])
def test_a_service_that_cannot_be_reached_is_told(tmp_path: Path, scheme: str) -> None:
    path = keys.write_reference(tmp_path, "root", f"{scheme}:one", keys.make_signer().public_key)
    assert json.loads(path.read_text())["uri"] == f"{scheme}:one"
    with refused("no_signer"):
        keys.load_signer(path, answer)
    with refused("malformed"):
        keys.write_reference(tmp_path, "root", "no uri", keys.make_signer().public_key)


def test_the_kms_whose_library_is_imported_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("boto3")
    at_start = "imported without boto3"
    monkeypatch.setattr(_aws_signer, "AWS_IMPORT_ERROR", at_start)
    path = keys.write_reference(tmp_path, "root", "awskms:one", keys.make_signer().public_key)
    with refused("no_signer") as caught:
        keys.load_signer(path, answer)
    assert at_start not in str(caught.value)  # but that nothing answers there


def test_the_passphrase_of_the_environment(tmp_path: Path) -> None:
    assert passphrases.passphrase_from({}) is None
    given = passphrases.passphrase_from({"WEFT_KEYS_PASSPHRASE": "correct horse battery"})
    assert given
    assert given("a file") == PASSPHRASE
    path = tmp_path / "passphrase"
    path.write_bytes(PASSPHRASE + b"\r\n")
    path.chmod(0o600)
    given = passphrases.passphrase_from({"WEFT_KEYS_PASSPHRASE_FILE": str(path)})
    assert given
    assert given("a file") == PASSPHRASE
    path.chmod(0o644)
    with refused("open_to_others"):
        passphrases.passphrase_from({"WEFT_KEYS_PASSPHRASE_FILE": str(path)})
