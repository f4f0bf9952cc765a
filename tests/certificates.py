"""Certificates for TLS on loopback, made for the test and worth nothing elsewhere."""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
import ssl
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

DAY = datetime.timedelta(days=1)


@dataclass(frozen=True)
class Authority:
    """Who signs certificates; `file` is to be trusted, by SSL_CERT_FILE for instance."""

    file: Path
    key: ec.EllipticCurvePrivateKey
    name: x509.Name

    def server(
        self,
        host: str = "127.0.0.1",
        ends: datetime.timedelta = DAY,
        key: ec.EllipticCurvePrivateKey | None = None,
    ) -> ssl.SSLContext:
        """A server's side of TLS, with a certificate for `host` that ends so far from now."""
        return _context(self, host, ends, key or new_key(), self.file.parent)


def new_key() -> ec.EllipticCurvePrivateKey:
    """A key to make certificates for."""
    return ec.generate_private_key(ec.SECP256R1())


def pin_of(key: ec.EllipticCurvePrivateKey) -> str:
    """What a device pins of it."""
    spki = key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return hashlib.sha256(spki).hexdigest()


def authority(folder: Path) -> Authority:
    """A new authority, whose certificate is written to the folder."""
    key, name = new_key(), _name("Weft tests")
    basic = x509.BasicConstraints(ca=True, path_length=0)
    usage = x509.KeyUsage(
        key_cert_sign=True,
        crl_sign=True,
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    made = (
        _builder(name, name, key, DAY)
        .add_extension(basic, critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    file = folder / "authority.pem"
    file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    return Authority(file, key, name)


def _context(
    signer: Authority,
    host: str,
    ends: datetime.timedelta,
    key: ec.EllipticCurvePrivateKey,
    folder: Path,
) -> ssl.SSLContext:
    names: list[x509.GeneralName] = [x509.IPAddress(ipaddress.ip_address(host))]
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.key.public_key())
    made = (
        _builder(_name(host), signer.name, key, ends)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(issuer, critical=False)
        .sign(signer.key, hashes.SHA256())
    )
    file = folder / f"server-{made.serial_number}.pem"
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    file.write_bytes(made.public_bytes(serialization.Encoding.PEM) + secret)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    ends: datetime.timedelta,
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.timezone.utc)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - 10 * DAY)
        .not_valid_after(now + ends)
    )


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])
