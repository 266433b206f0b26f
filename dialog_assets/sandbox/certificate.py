"""A certificate for the sandbox's TLS: self-signed, for 127.0.0.1 and localhost, for one life of the sandbox.

Ours trust it by DIALOG_ASSETS_CA_BUNDLE; others as their only authority: httpx by `verify`, requests by REQUESTS_CA_BUNDLE,
gRPC by GRPC_DEFAULT_SSL_ROOTS_FILE_PATH, which it reads at the first secure channel of a process, boto3 by AWS_CA_BUNDLE.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_LIFE = timedelta(days=30)


def write_certificate(folder: Path, host: str = "127.0.0.1") -> tuple[Path, Path]:
    """Make `certificate.pem` and `key.pem` in `folder`; the key is the owner's alone."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "dialog-assets sandbox")])
    addresses = {ip_address(host), IPv4Address("127.0.0.1")}
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + _LIFE)
        .add_extension(
            x509.SubjectAlternativeName([*(x509.IPAddress(one) for one in addresses), x509.DNSName("localhost")]),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "certificate.pem", folder / "key.pem"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].touch(mode=0o600)
    paths[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return paths
