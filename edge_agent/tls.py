"""Whom the agent believes to be its server: authorities, and keys that are known beforehand.

What must hold, in this order, before a single byte of a request is sent:

    1. TLS 1.2 or later;
    2. the certificate is valid now, for the host of `server`, and vouched for by an authority: one
       of the file `server_ca`, or else of the system;
    3. where `server_pins` are set: the key of the certificate is one of them. So an authority that
       errs, or is forced to, cannot put somebody in between.
"""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Collection
from pathlib import Path

from shared.errors import BadConfig


def trusting(authorities: Path | None) -> ssl.SSLContext:
    """The device's side of TLS. Raises BadConfig `invalid` where the file is of no use.

    None: the authorities of the system (or of SSL_CERT_FILE); those of httpcore where it has none.
    """
    context = _of_the_system() if authorities is None else _of(authorities)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def is_pinned(certificate: bytes, pins: Collection[str]) -> bool:
    """Whether the key of a certificate (DER) is one of `pins`; no pins: any key is."""
    return not pins or key_digest(certificate) in pins


def key_digest(certificate: bytes) -> str:
    """SHA-256 of the public key in a certificate (its SubjectPublicKeyInfo), as 64 hex digits."""
    from cryptography import x509  # costs memory, and pins are seldom set
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    key = x509.load_der_x509_certificate(certificate).public_key()
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(spki).hexdigest()


def _of(authorities: Path) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=str(authorities))
    except OSError as error:  # an SSLError is one too: what it is not is a file of certificates
        told = error.strerror or "no certificates in PEM"
        raise BadConfig("invalid", f"server_ca: {authorities}: {told}") from error


def _of_the_system() -> ssl.SSLContext:
    paths = ssl.get_default_verify_paths()
    if paths.cafile or (paths.capath and any(Path(paths.capath).iterdir())):
        return ssl.create_default_context()
    import httpcore

    return httpcore.default_ssl_context()
