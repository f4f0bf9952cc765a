"""A private key under a passphrase: PKCS#8 with PBES2 (RFC 8018), as OpenSSL reads it.

`cryptography` writes the same form, but always with 2,048 rounds of PBKDF2, which a few graphics
cards try out in a night. Only the envelope is made here, byte by byte; it is opened by the library.
"""

from __future__ import annotations

import base64
import os
import textwrap

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC
from cryptography.hazmat.primitives.padding import PKCS7
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

#: Of PBKDF2-HMAC-SHA256; about a third of a second (OWASP's number of 2023).
ROUNDS = 600_000

_SEQUENCE, _INTEGER, _OCTETS, _NULL, _OID = b"\x30", b"\x02", b"\x04", b"\x05\x00", b"\x06"
_PBES2 = bytes.fromhex("2a864886f70d01050d")
_PBKDF2 = bytes.fromhex("2a864886f70d01050c")
_HMAC_SHA256 = bytes.fromhex("2a864886f70d0209")
_AES256_CBC = bytes.fromhex("60864801650304012a")
_KEY_BYTES, _BLOCK_BITS, _SHORT = 32, 128, 0x80


def seal(key: Ed25519PrivateKey, passphrase: bytes) -> bytes:
    """The key as an encrypted PEM file."""
    plain = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    salt, vector = os.urandom(16), os.urandom(16)
    derived = PBKDF2HMAC(SHA256(), _KEY_BYTES, salt, ROUNDS).derive(passphrase)
    padder = PKCS7(_BLOCK_BITS).padder()
    encryptor = Cipher(AES(derived), CBC(vector)).encryptor()
    hidden = encryptor.update(padder.update(plain) + padder.finalize()) + encryptor.finalize()
    rounds = ROUNDS.to_bytes(ROUNDS.bit_length() // 8 + 1, "big")
    hashed = _der(_SEQUENCE, _der(_OID, _HMAC_SHA256), _NULL)
    derivation = _der(_SEQUENCE, _der(_OCTETS, salt), _der(_INTEGER, rounds), hashed)
    how = _der(
        _SEQUENCE,
        _der(_SEQUENCE, _der(_OID, _PBKDF2), derivation),
        _der(_SEQUENCE, _der(_OID, _AES256_CBC), _der(_OCTETS, vector)),
    )
    envelope = _der(_SEQUENCE, _der(_SEQUENCE, _der(_OID, _PBES2), how), _der(_OCTETS, hidden))
    text = "\n".join(textwrap.wrap(base64.b64encode(envelope).decode(), 64))
    label = "ENCRYPTED PRIVATE KEY"
    return f"-----BEGIN {label}-----\n{text}\n-----END {label}-----\n".encode()


def _der(tag: bytes, *parts: bytes) -> bytes:
    """One DER value; none here is longer than 255 bytes."""
    content = b"".join(parts)
    size = len(content)
    return tag + (bytes([size]) if size < _SHORT else bytes([0x81, size])) + content
