"""The webhook's certificates: when one is made, shown and forgotten, as a pure rule; and how one is made.

The API server calls the webhook by TLS and believes the authorities in its configuration. Each certificate here has an
authority of its own, whose key is thrown away once it has signed: there is no key that could sign another. So the next
certificate has another authority, and nobody may see it before the API server believes that. A change takes three
steps, each written down before the next, so that whoever goes on after a crash reads where it stands:

    stage    the next certificate is kept; both authorities are believed
    promote  once they have been believed for `SETTLE`: the next one is shown, the former's authority still believed
    forget   once that has lasted `OVERLAP`: every process shows the new one, and the former is believed no more

What a process shows is believed at every moment, if API servers hear of a new configuration within `SETTLE`, and
processes of a new certificate within `OVERLAP` (a property test says so).
"""

import base64
import binascii
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LIFE = 90 * 86400.0
RENEW = LIFE / 3
"""A certificate with less time left than this is replaced."""
SKEW = 3600.0
"""How much a clock may be behind the one that a certificate was made by."""
SETTLE = 60.0
OVERLAP = 600.0

_FIELDS = {"current": ("tls.crt", "tls.key", "ca.crt"), "next": ("next.crt", "next.key", "next-ca.crt")}
_FORMER = "former-ca.crt"


@dataclass(frozen=True, kw_only=True, slots=True)
class Shown:
    """A certificate with its key and its authority, as PEM; when it ends, in seconds since the epoch."""

    certificate: str
    key: str
    authority: str
    ends: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Kept:
    """What the Secret holds: what is shown, what will be, and the authority of what was."""

    current: Shown | None = None
    next: Shown | None = None
    former: str = ""

    @property
    def bundle(self) -> str:
        """The authorities to believe."""
        return "".join([*(one.authority for one in (self.current, self.next) if one is not None), self.former])


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """What to keep now, if it is to change, and by which step; otherwise in how many seconds time makes one due."""

    keep: Kept | None = None
    name: str = ""
    wait: float = 0.0


def decide(kept: Kept, *, steady: float, now: float, make: Callable[[], Shown]) -> Step:
    """The next step at `now` (since the epoch).

    `steady` is for how many seconds it has been seen that `kept` is kept and its bundle believed, 0 where it isn't yet.
    A certificate that has ended, or none, is replaced at once: there is nothing to be lost.
    """
    current, following = kept.current, kept.next
    if current is None or current.ends <= now:
        usable = following is not None and following.ends > now
        return Step(keep=Kept(current=following if usable else make()), name="begin")
    if following is not None and steady >= SETTLE:
        return Step(keep=Kept(current=following, former=current.authority), name="promote")
    if kept.former and steady >= OVERLAP:
        return Step(keep=replace(kept, former=""), name="forget")
    if following is not None:
        return _wait(SETTLE - steady)
    if kept.former:
        return _wait(OVERLAP - steady)
    if current.ends - now < RENEW:
        return Step(keep=replace(kept, next=make()), name="stage")
    return _wait(current.ends - RENEW - now)


def _wait(seconds: float) -> Step:
    # Not for the rest of a rounding.
    return Step(wait=max(1.0, seconds))


def make_certificate(names: tuple[str, ...], now: float, life: float = LIFE) -> Shown:
    """A certificate for `names` and an authority that signed it and nothing else."""
    begins, ends = _time(now - SKEW), _time(now + life)
    signer, own = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    serial = x509.random_serial_number()
    issuer = _name(f"chimera-admission {serial:x}")
    authority = (
        _builder(issuer, issuer, signer.public_key(), signer.public_key(), begins, ends)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .sign(signer, hashes.SHA256())
    )
    certificate = (
        _builder(_name(names[0]), issuer, own.public_key(), signer.public_key(), begins, ends)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        .sign(signer, hashes.SHA256())
    )
    key = own.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return Shown(
        certificate=_pem(certificate),
        key=key.decode(),
        authority=_pem(authority),
        ends=certificate.not_valid_after_utc.timestamp(),
    )


def to_data(kept: Kept) -> dict[str, str]:
    """As the `data` of a Secret."""
    found: dict[str, str] = {}
    for shown, fields in ((kept.current, _FIELDS["current"]), (kept.next, _FIELDS["next"])):
        if shown is not None:
            found.update(zip(fields, (shown.certificate, shown.key, shown.authority), strict=True))
    if kept.former:
        found[_FORMER] = kept.former
    return {name: base64.b64encode(text.encode()).decode() for name, text in found.items()}


def from_data(data: Mapping[str, str], names: tuple[str, ...]) -> Kept:
    """What a Secret's `data` says; what can't be used, or is for other names, counts as not there."""
    return Kept(
        current=_shown(data, _FIELDS["current"], names),
        next=_shown(data, _FIELDS["next"], names),
        former=_authority(_text(data, _FORMER)),
    )


def _shown(data: Mapping[str, str], fields: tuple[str, ...], names: tuple[str, ...]) -> Shown | None:
    text, key, authority = (_text(data, field) for field in fields)
    try:
        certificate, signer = (x509.load_pem_x509_certificate(one.encode()) for one in (text, authority))
        private = serialization.load_pem_private_key(key.encode(), password=None)
        certificate.verify_directly_issued_by(signer)
        told = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except Exception:  # whatever is wrong with it, another is made
        return None
    if private.public_key() != certificate.public_key() or tuple(told.get_values_for_type(x509.DNSName)) != names:
        return None
    return Shown(certificate=text, key=key, authority=authority, ends=certificate.not_valid_after_utc.timestamp())


def _authority(text: str) -> str:
    try:
        x509.load_pem_x509_certificate(text.encode())
    except ValueError:
        return ""
    return text


def _text(data: Mapping[str, str], field: str) -> str:
    try:
        return base64.b64decode(data.get(field, ""), validate=True).decode()
    except (binascii.Error, ValueError):
        return ""


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    signer: ec.EllipticCurvePublicKey,
    begins: datetime,
    ends: datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(ends)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer), critical=False)
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        key_cert_sign=signs,
        crl_sign=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:64])])


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
