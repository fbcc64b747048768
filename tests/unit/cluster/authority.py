"""Certificate authorities of the tests' own, and a TLS server that answers everything with a JSON document."""

import contextlib
import http.server
import json
import socket
import socketserver
import ssl
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Pair:
    """A certificate and its key, as files."""

    certificate: Path
    key: Path


def openssl(*words: object) -> None:
    subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True)


def make_authority(folder: Path, name: str) -> Pair:
    pair = Pair(folder / f"{name}.crt", folder / f"{name}.key")
    new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", pair.key]
    openssl("req", "-x509", *new_key, "-out", pair.certificate, "-days", "2", "-subj", f"/CN={name}")
    return pair


def issue(authority: Pair, folder: Path, name: str, alternative: str | None) -> Pair:
    """A certificate for CN=name, and for the subjectAltName where one is given."""
    pair = Pair(folder / f"{name}.crt", folder / f"{name}.key")
    request, extensions = folder / f"{name}.csr", folder / f"{name}.ext"
    extensions.write_text(f"subjectAltName={alternative}\n" if alternative else "basicConstraints=CA:FALSE\n")
    new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", pair.key]
    openssl("req", "-new", *new_key, "-out", request, "-subj", f"/CN={name}")
    signed_by = ["-CA", authority.certificate, "-CAkey", authority.key, "-CAcreateserial", "-extfile", extensions]
    openssl("x509", "-req", "-in", request, "-out", pair.certificate, "-days", "2", *signed_by)
    return pair


@dataclass
class Served:
    """A server's address, and what it was asked."""

    url: str
    requests: list[tuple[str, list[tuple[str, str]]]] = field(default_factory=list)
    status: int = 200


@contextlib.contextmanager
def serve(pair: Pair | None, clients: Pair | None = None) -> Iterator[Served]:
    """A server on a free port of 127.0.0.1; with `clients` it wants certificates of that authority."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            served.requests.append((self.path, list(self.headers.items())))
            body = json.dumps({"items": []}).encode()
            self.send_response(served.status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    class Server(http.server.ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """Handshakes that fail are what is tested."""

    server = Server(("127.0.0.1", 0), Handler)
    if pair:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pair.certificate, pair.key)
        if clients:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(clients.certificate)
        # In the connection's own thread.
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    served = Served(f"http{'s' if pair else ''}://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


@contextlib.contextmanager
def serve_proxy() -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """An HTTP proxy that tunnels: its URL, and whom it was asked for, with which credentials."""
    requests: list[tuple[str, str]] = []

    class Tunnel(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            target = self.rfile.readline().split()[1].decode()
            headers = [line for line in iter(self.rfile.readline, b"\r\n") if line.lower().startswith(b"proxy-auth")]
            requests.append((target, headers[0].split()[-1].decode() if headers else ""))
            host, _, port = target.rpartition(":")
            with socket.create_connection((host, int(port))) as onward:
                self.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
                back = threading.Thread(target=pump, args=(onward, self.connection), daemon=True)
                back.start()
                pump(self.connection, onward)
                back.join(10)

    def pump(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

    server = Server(("127.0.0.1", 0), Tunnel)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}", requests
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
