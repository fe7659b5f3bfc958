"""SSH signatures (OpenSSH's PROTOCOL.sshsig), as Git puts them into commits and tags: verifying them.

The key must be in the list of signers; what is verified is that this key signed these bytes in the namespace `git`.
RSA keys below 2048 bits and SHA-1 are refused.
"""

import base64
import binascii
import hashlib

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import load_ssh_public_key

from chimera.delivery.git.protection import Signature
from chimera.delivery.git.signers import NAMESPACE, Person, Signers

_BEGIN, _END = b"-----BEGIN SSH SIGNATURE-----", b"-----END SSH SIGNATURE-----"
_MAGIC = b"SSHSIG"
_HASHES = {b"sha256": hashlib.sha256, b"sha512": hashlib.sha512}
_RSA_HASHES = {b"rsa-sha2-256": hashes.SHA256(), b"rsa-sha2-512": hashes.SHA512()}
_CURVE_HASHES = {256: hashes.SHA256(), 384: hashes.SHA384(), 521: hashes.SHA512()}
_LEAST_RSA_BITS = 2048


class _Bad(Exception):
    """The signature isn't one, or doesn't fit."""


def verify(payload: bytes, signature: bytes | None, signers: Signers) -> tuple[Signature, Person | None]:
    """Who signed `payload`, and how that is known."""
    if signature is None or not signature.startswith(_BEGIN):
        return "missing", None
    try:
        key, namespace, algorithm, inner = _parts(signature)
        if namespace != NAMESPACE.encode() or algorithm not in _HASHES:
            raise _Bad
        signed = _MAGIC + _packed(namespace, b"", algorithm, _HASHES[algorithm](payload).digest())
        if key not in signers.keys:
            return "unknown", None
        _verify(key, inner, signed)
    except (_Bad, InvalidSignature, UnsupportedAlgorithm, ValueError):
        return "bad", None
    return "good", signers.keys[key]


def _parts(armored: bytes) -> tuple[bytes, bytes, bytes, bytes]:
    """Key, namespace, hash and the signature itself."""
    text = armored.strip()
    if not text.endswith(_END):
        raise _Bad
    try:
        raw = base64.b64decode(b"".join(text[len(_BEGIN) : -len(_END)].split()), validate=True)
    except binascii.Error:
        raise _Bad from None
    if raw[:6] != _MAGIC or raw[6:10] != b"\0\0\0\1":
        raise _Bad
    key, namespace, reserved, algorithm, inner = _strings(raw[10:], 5)
    if reserved:
        raise _Bad
    return key, namespace, algorithm, inner


def _verify(key: bytes, inner: bytes, signed: bytes) -> None:
    (kind,) = _strings(key, 1, rest=True)
    public = load_ssh_public_key(kind + b" " + base64.b64encode(key))
    form, value = _strings(inner, 2)
    if isinstance(public, ed25519.Ed25519PublicKey) and form == b"ssh-ed25519":
        public.verify(value, signed)
    elif isinstance(public, rsa.RSAPublicKey) and form in _RSA_HASHES and public.key_size >= _LEAST_RSA_BITS:
        public.verify(value, signed, padding.PKCS1v15(), _RSA_HASHES[form])
    elif isinstance(public, ec.EllipticCurvePublicKey) and form == kind:
        first, second = (int.from_bytes(part, "big") for part in _strings(value, 2))
        public.verify(encode_dss_signature(first, second), signed, ec.ECDSA(_CURVE_HASHES[public.key_size]))
    else:
        raise _Bad


def _strings(raw: bytes, count: int, *, rest: bool = False) -> list[bytes]:
    found: list[bytes] = []
    at = 0
    for _ in range(count):
        length = int.from_bytes(raw[at : at + 4], "big")
        value = raw[at + 4 : at + 4 + length]
        if len(raw) < at + 4 or len(value) != length:
            raise _Bad
        found.append(value)
        at += 4 + length
    if at != len(raw) and not rest:
        raise _Bad
    return found


def _packed(*values: bytes) -> bytes:
    return b"".join(len(value).to_bytes(4, "big") + value for value in values)
