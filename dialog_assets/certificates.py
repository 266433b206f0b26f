"""Whom to trust over TLS, in one way for every place: portals, recording hosts, S3, VoiceKit and its storage, LLM vendors.

DIALOG_ASSETS_CA_BUNDLE names a PEM file with certificates that are trusted besides the usual ones, such as a company's own
authority or the Russian Trusted Root CA. The usual ones are each library's, or those of its own variable (_LIBRARIES).
Here: that file, in the forms that the libraries take; and what is wrong where a certificate is refused. Not here: addresses.
"""

from __future__ import annotations

import atexit
import functools
import os
import re
import shutil
import ssl
import tempfile
from collections.abc import Iterator
from pathlib import Path

from dialog_assets.errors import DialogAssetsError

VARIABLE = "DIALOG_ASSETS_CA_BUNDLE"

_LIBRARIES = {
    "SSL_CERT_FILE": "httpx",
    "AWS_CA_BUNDLE": "boto3",
    "REQUESTS_CA_BUNDLE": "boto3",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH": "gRPC",
}
"""Variables that replace the usual certificates, and whose they are. They are the libraries' own; ours adds to any of them."""

_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----[\sA-Za-z0-9+/=]*-----END CERTIFICATE-----")
_REFUSED = "CERTIFICATE_VERIFY_FAILED"
_OTHER_HOST = re.compile(
    r"(hostname|ip address) mismatch|hostname verification check failed|doesn't match|not valid for"
)
_NO_TLS = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG", "HTTP_REQUEST")
"""What TLS makes of an answer in plain HTTP."""

_LARGEST = 20_000_000


class CertificatesUnusable(DialogAssetsError):
    """A variable that names trusted certificates leads to no file with certificates."""


def check() -> str:
    """What is trusted, as a sentence. Raises CertificatesUnusable for a variable that leads to nothing."""
    for variable in _LIBRARIES:
        if path := os.environ.get(variable, "").strip():
            _certificates_of(variable, path)
    directory = os.environ.get("SSL_CERT_DIR", "").strip()
    if directory and not any(Path(one).is_dir() for one in directory.split(os.pathsep)):
        raise CertificatesUnusable(f"SSL_CERT_DIR is {directory!r}, and no such folder is there: correct or unset it.")
    ours = _ours()
    replaced = [variable for variable in (*_LIBRARIES, "SSL_CERT_DIR") if os.environ.get(variable, "").strip()]
    usual = f"those of {', '.join(replaced)}" if replaced else "the usual certificates"
    added = len(_CERTIFICATE.findall(ours))
    return f"{usual}, and {added} of {VARIABLE}" if added else usual


def context() -> ssl.SSLContext:
    """What httpx takes as `verify`. Raises CertificatesUnusable."""
    check()
    return _context(_ours(), os.environ.get("SSL_CERT_FILE", ""), os.environ.get("SSL_CERT_DIR", ""))


def bundle() -> str | None:
    """What boto3 takes as `ca_bundle`: the path of a PEM file, None where nothing is added. Raises CertificatesUnusable."""
    check()
    ours = _ours()
    return _written(_usual("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE") + b"\n" + ours) if ours else None


def roots() -> bytes | None:
    """What gRPC takes as `root_certificates`, None where nothing is added. Raises CertificatesUnusable."""
    check()
    ours = _ours()
    return _usual("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH") + b"\n" + ours if ours else None


def fault(error: BaseException | str) -> str | None:
    """What is wrong with the other side's TLS and what to do, to follow a name and a colon; None if that is not the matter.

    `error`: what a library raised, or its text. None of these passes by itself, so none is tried again.
    """
    if isinstance(error, str):
        return _fault(error, None)
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return _fault(f"{_REFUSED} {cause.verify_message}", cause.verify_message)
    return next((told for cause in _causes(error) if (told := _fault(str(cause), None)) is not None), None)


def _fault(text: str, reason: str | None) -> str | None:
    lowered = text.lower()
    if _OTHER_HOST.search(lowered):
        return "its certificate is for another host: correct the address"
    if _REFUSED in text.upper():
        if "has expired" in lowered or "not yet valid" in lowered:
            return "its certificate is out of date: look at this machine's clock, else whoever runs the service must renew it"
        why = f" ({reason})" if reason else ""
        return (
            f"its certificate is not trusted{why}: set {VARIABLE} to a PEM file with the certificate of the authority "
            "that signed it"
        )
    if any(word in text.upper().replace(" ", "_") for word in _NO_TLS):
        return "it does not speak TLS at this address: correct the scheme or the port"
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what led to it: by Python's chain, by what libraries keep beside it, and by their arguments."""
    seen: set[int] = set()
    left = [error]
    while left:
        one = left.pop(0)
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        kept = (
            one.__cause__,
            one.__context__,
            getattr(one, "reason", None),
            getattr(one, "kwargs", {}).get("error"),
            *one.args,
        )
        left.extend(other for other in kept if isinstance(other, BaseException))


def _ours() -> bytes:
    path = os.environ.get(VARIABLE, "").strip()
    return _certificates_of(VARIABLE, path) if path else b""


def _usual(*variables: str) -> bytes:
    """The certificates of the first variable that is set, else Mozilla's, as boto3 brings them."""
    for variable in variables:
        if path := os.environ.get(variable, "").strip():
            return _certificates_of(variable, path)
    from botocore.httpsession import where

    return Path(where()).read_bytes()


def _certificates_of(variable: str, path: str) -> bytes:
    """The certificates in a file, and nothing else of it."""
    try:
        stat = Path(path).stat()
    except (OSError, ValueError) as error:
        raise _unusable(variable, path, _why(error)) from None
    return _read(variable, path, (stat.st_mtime_ns, stat.st_size, stat.st_ino))


@functools.lru_cache(maxsize=16)
def _read(variable: str, path: str, state: tuple[int, int, int]) -> bytes:
    if state[1] > _LARGEST:
        raise _unusable(variable, path, "is too large for a list of certificates")
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise _unusable(variable, path, _why(error)) from None
    found = b"\n".join(_CERTIFICATE.findall(data))
    if not found:
        raise _unusable(
            variable, path, "holds no certificate in PEM form (openssl x509 -inform der -outform pem makes one of DER)"
        )
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=found.decode("ascii"))
    except (ssl.SSLError, ValueError):
        raise _unusable(variable, path, "holds a damaged certificate: copy it whole") from None
    return found


def _unusable(variable: str, path: str, what: str) -> CertificatesUnusable:
    return CertificatesUnusable(f"{variable} names {path!r}, which {what}; correct or unset it.")


def _why(error: Exception) -> str:
    if isinstance(error, FileNotFoundError | NotADirectoryError | ValueError):
        return "is not there"
    if isinstance(error, IsADirectoryError):
        return "is a folder and not a file"
    return f"cannot be read ({os.strerror(error.errno) if isinstance(error, OSError) and error.errno else 'unknown'})"


@functools.lru_cache(maxsize=4)
def _context(ours: bytes, *_: str) -> ssl.SSLContext:
    """Read once a process and setting: reading it takes longer than a portal takes for a small window of calls."""
    import httpx2

    made = httpx2.create_ssl_context()
    if ours:
        made.load_verify_locations(cadata=ours.decode("ascii"))
        # A certificate that is named here is trusted by that: it need not be an authority's, nor by every rule of one.
        made.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        made.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return made


@functools.lru_cache(maxsize=4)
def _written(certificates: bytes) -> str:
    """A file of these certificates, for the life of this process; they are public."""
    folder = tempfile.mkdtemp(prefix="dialog_assets-certificates-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path = Path(folder) / "certificates.pem"
    path.write_bytes(certificates)
    return str(path)
