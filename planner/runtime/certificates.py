"""Certificates of workers: self-signed, one for each device, pinned by the aggregator."""

from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

from planner.errors import InputError

# The aggregator trusts a certificate that it holds a copy of, whatever the date; many boards have no clock.
_FROM = datetime(2020, 1, 1, tzinfo=timezone.utc)
_VALIDITY = timedelta(days=365 * 100)
# A device's own name may be longer than a certificate's.
_NAME = "vit-planner worker"


@dataclass(frozen=True)
class Certificate:
    """Certificate and private key of a device, both as PEM."""

    certificate: bytes
    key: bytes


def make_certificate() -> Certificate:
    """Return a new key with its self-signed certificate: ECDSA on P-256.

    Raises:
        InputError: If cryptography is not installed.
    """
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
    except ImportError:
        raise InputError(
            "A device's certificate needs cryptography, which is not installed: pip install 'vit-planner[deploy]'."
        ) from None
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, _NAME)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_FROM)
        .not_valid_after(_FROM + _VALIDITY)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(x509), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Certificate(
        certificate.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
    )


def _usage(x509: Any) -> Any:
    """Return what the key is for: the handshakes of its worker, and this certificate, the root that is trusted."""
    names = (
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
        "encipher_only",
        "decipher_only",
    )
    return x509.KeyUsage(**{name: name in ("digital_signature", "key_cert_sign") for name in names})
