"""TLS for connections to an API server, with the same trust as kubectl."""

from __future__ import annotations

import contextlib
import os
import re
import ssl
import tempfile
from collections.abc import Iterator

_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)


def client_context(authority: bytes | None, *, verify: bool = True) -> ssl.SSLContext:
    """A context that trusts only these PEM certificates, or with None the system's.

    As in Go, a trusted certificate need not be a root, and the server's name must be in its subjectAltName. Raises
    ValueError without any certificate, ssl.SSLError for broken ones.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.hostname_checks_common_name = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif authority is None:
        context.load_default_certs()
    else:
        blocks = _CERTIFICATE.findall(authority)
        if not blocks:
            raise ValueError("it has no PEM certificate")
        context.load_verify_locations(cadata="\n".join(block.decode("ascii") for block in blocks))
    return context


def identify(context: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    """Loads a client certificate into the context. Raises ssl.SSLError if certificate and key do not match."""

    def no_passphrase() -> bytes:
        raise ValueError("the key is encrypted, and a kubeconfig cannot have its passphrase")

    # OpenSSL loads client certificates only from files.
    with _private_file(certificate + b"\n" + key) as pair:
        context.load_cert_chain(pair, password=no_passphrase)


@contextlib.contextmanager
def _private_file(content: bytes) -> Iterator[str]:
    descriptor, name = tempfile.mkstemp(prefix="replayctl-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        yield name
    finally:
        os.unlink(name)
