"""TLS towards an API server, trusting what kubectl trusts and nothing else."""

from __future__ import annotations

import contextlib
import os
import re
import ssl
import tempfile
from collections.abc import Iterator

_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)


def client_context(authority: bytes | None, *, verify: bool = True) -> ssl.SSLContext:
    """A context that trusts the given PEM certificates alone, the system's where None are given.

    As in Go, a certificate among them is trusted even if it is no root, and a server's name must stand in its
    subjectAltName. Raises ValueError when no certificate is among the bytes, ssl.SSLError for broken ones.
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
            raise ValueError("there is no PEM certificate in it")
        context.load_verify_locations(cadata="\n".join(block.decode("ascii") for block in blocks))
    return context


def identify(context: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    """Has the context's next connections present a client certificate; ssl.SSLError when the two do not fit."""

    def no_passphrase() -> bytes:
        raise ValueError("the key is encrypted, and kubeconfigs have no place for its passphrase")

    # OpenSSL takes a certificate of one's own from files only.
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
