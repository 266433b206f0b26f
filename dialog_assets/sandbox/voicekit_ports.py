"""The ports of the sandbox's gRPC: plaintext, and TLS beside it over the same handlers."""

from __future__ import annotations

import contextlib
import random
import socket
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import grpc
import grpc.aio

MESSAGE_LIMIT = 32_000_000
_OPTIONS = [
    ("grpc.max_receive_message_length", MESSAGE_LIMIT),
    ("grpc.max_send_message_length", MESSAGE_LIMIT),
    ("grpc.so_reuseport", 0),
]


def plaintext_server(handlers: Sequence[grpc.GenericRpcHandler], host: str, port: int) -> tuple[grpc.aio.Server, int]:
    """A server that is not started yet, and its port: `port`, or any free one for 0. OSError if it is taken.

    A port that it chooses does not end in 443, because clients take such a port for TLS (facts/voicekit.md section 2).
    """
    while True:
        server = grpc.aio.server(options=_OPTIONS)
        server.add_generic_rpc_handlers(tuple(handlers))
        bound = _bind(server.add_insecure_port, host, port)
        if port or bound % 1000 != 443:
            return server, bound


def add_tls(server: grpc.aio.Server, certificate: tuple[Path, Path], host: str, port: int) -> int:
    """Serve over TLS too, with a certificate and its key (PEM files); returns the port. OSError if it is taken.

    For 0 it is any free port that ends in 443: clients take such a port, and only such, for TLS.
    """
    chain, key = (path.read_bytes() for path in certificate)
    credentials = grpc.ssl_server_credentials([(key, chain)])
    listen = partial(server.add_secure_port, server_credentials=credentials)
    if port:
        return _bind(listen, host, port)
    # Not in order, as sandboxes that start side by side would want the same one.
    for candidate in random.sample(range(1443, 65536, 1000), 65):
        with contextlib.suppress(OSError):
            # gRPC complains aloud of a port that is taken.
            socket.create_server((host, candidate)).close()
            return _bind(listen, host, candidate)
    raise OSError(f"no port that ends in 443 is free on {host}")


def _bind(listen: Callable[[str], int], host: str, port: int) -> int:
    try:
        return listen(f"{host}:{port}")
    except RuntimeError as error:
        raise OSError(str(error)) from error
