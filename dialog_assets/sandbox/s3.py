"""The archive's S3: moto in a thread of this process, with one bucket, and its objects on disk between two lives.

Not here: what a request meets before moto (`s3_front.py`), VoiceKit's own `inbound` storage (`inbound.py`). moto keeps
buckets per process, so a second sandbox of the same process gets a bucket of its own name.
"""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dialog_assets.sandbox.books import Books
from dialog_assets.sandbox.faults import Faults
from dialog_assets.sandbox.s3_front import Front
from dialog_assets.sandbox.state import load_objects, save_objects

if TYPE_CHECKING:
    from moto.s3.models import S3Backend

BUCKET = "sandbox-recordings"
REGION = "us-east-1"
ACCESS_KEY_ID = "sandbox-aws-key-id"
SECRET_ACCESS_KEY = "sandbox-aws-secret"


class S3Server:
    """moto's S3 on a port of its own; `bucket` is there as soon as `start` returns. All methods block: call them in a thread."""

    def __init__(self, books: Books | None = None, faults: Faults | None = None) -> None:
        self.bucket = BUCKET
        self._books = books or Books()
        self._faults = faults or Faults()
        self._server: Any = None

    def start(self, host: str, port: int) -> int:
        """Serve on `host`, on a free port if `port` is 0; returns the port."""
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
        from werkzeug.serving import make_server

        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        front = Front(
            DomainDispatcherApplication(create_backend_app),
            self._books,
            self._faults,
            access_key=ACCESS_KEY_ID,
            secret_key=SECRET_ACCESS_KEY,
        )
        self._server = make_server(host, port, front, threaded=True, request_handler=MotoRequestHandler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        taken, number = set(_backend().buckets), 1
        while self.bucket in taken:
            number += 1
            self.bucket = f"{BUCKET}-{number}"
        _backend().create_bucket(self.bucket, REGION)
        return int(self._server.server_address[1])

    def stop(self) -> None:
        """Stop serving; the objects stay until `release`."""
        if self._server is not None:
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()
            self._server = None

    def release(self) -> None:
        """Let go of the bucket and its objects."""
        if self.bucket in _backend().buckets:
            self.reset()
            _backend().delete_bucket(self.bucket)

    def reset(self) -> None:
        """Empty the bucket."""
        bucket = _backend().buckets[self.bucket]
        for key in list(bucket.keys.values()):
            key.dispose()
        bucket.keys.clear()
        bucket.multiparts.clear()

    def save(self, folder: Path) -> None:
        """Write every object below `folder`."""
        keys = _backend().buckets[self.bucket].keys.items()
        save_objects(folder, ((name, key.value, dict(key.metadata)) for name, key in keys))

    def restore(self, folder: Path) -> None:
        """Put back what `save` wrote."""
        for name, data, metadata in load_objects(folder):
            _backend().put_object(self.bucket, name, data, disable_notification=True).set_metadata(metadata)


def _backend() -> S3Backend:
    from moto.core import DEFAULT_ACCOUNT_ID
    from moto.s3.models import s3_backends

    return s3_backends[DEFAULT_ACCOUNT_ID]["aws"]
