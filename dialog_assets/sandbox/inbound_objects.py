"""Objects of VoiceKit's `inbound` storage: on disk while they are there, by account and raw name, gone after five days.

Here: keeping and reading. Not here: HTTP (`inbound`). All contents are in one unlinked temporary file, so that memory does
not grow with what is uploaded and nothing is left behind; its room is given back by `clear`.
"""

from __future__ import annotations

import hashlib
import io
import tempfile
import threading
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, BinaryIO

from dialog_assets.sandbox.clock import Clock

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

RETENTION = timedelta(days=5)
_CHUNK = 1 << 20

Span = tuple[int, int]
"""First byte and length in the file of contents."""


class Contents:
    """The file of all contents; may be used from threads."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - closed with its owner
        self._lock = threading.Lock()
        self._end = 0
        weakref.finalize(self, self._file.close)

    def reserve(self, size: int) -> int:
        """The first byte of room for `size` bytes."""
        with self._lock:
            first, self._end = self._end, self._end + size
            return first

    def write(self, at: int, data: bytes) -> None:
        """Put `data` into room that was reserved."""
        with self._lock:
            self._file.seek(at)
            self._file.write(data)

    def read(self, at: int, length: int) -> bytes:
        """Up to `length` bytes from byte `at`."""
        with self._lock:
            self._file.seek(at)
            return self._file.read(length)

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._file.truncate(0)
            self._end = 0


@dataclass(frozen=True)
class StoredObject:
    """An uploaded object. `written` is of the real clock, `moment` of the sandbox's, None if that stood still at no time."""

    contents: Contents
    spans: tuple[Span, ...]
    sha256: str
    etag: str
    written: datetime
    moment: datetime | None

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(length for _, length in self.spans)

    def open(self) -> BinaryIO:
        """The object as a file."""
        return io.BufferedReader(_Reader(self.contents, self.spans), _CHUNK)

    def read(self) -> bytes:
        """The whole object."""
        with self.open() as file:
            return file.read()

    def age(self, clock: Clock) -> timedelta:
        """By the sandbox's clock; none while that has no now."""
        if clock.now is None or self.moment is None:
            return timedelta()
        return clock.now - self.moment

    def modified(self, clock: Clock) -> datetime:
        """What Last-Modified says: of this age by the real clock, which is the client's."""
        return datetime.now(UTC) - self.age(clock) if self.age(clock) else self.written


class _Reader(io.RawIOBase):
    def __init__(self, contents: Contents, spans: tuple[Span, ...]) -> None:
        self._contents = contents
        self._spans = spans
        self._size = sum(length for _, length in spans)
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer)
        first = 0
        for start, length in self._spans:
            if self._at < first + length:
                inside = self._at - first
                data = self._contents.read(start + inside, min(len(view), length - inside))
                view[: len(data)] = data
                self._at += len(data)
                return len(data)
            first += length
        return 0


@dataclass
class Writing:
    """Bytes on their way in, hashed as they come."""

    contents: Contents
    room: int
    sha256: hashlib._Hash = field(default_factory=hashlib.sha256)
    md5: hashlib._Hash = field(default_factory=lambda: hashlib.md5(usedforsecurity=False))
    first: int = field(init=False)
    size: int = 0

    def __post_init__(self) -> None:
        self.first = self.contents.reserve(self.room)

    def write(self, data: bytes) -> None:
        """The next bytes, not more than there is room for."""
        if self.size + len(data) > self.room:
            raise ValueError("more bytes than announced")
        self.contents.write(self.first + self.size, data)
        self.sha256.update(data)
        self.md5.update(data)
        self.size += len(data)

    @property
    def span(self) -> Span:
        """Where the bytes are."""
        return self.first, self.size


class Objects(Mapping[str, bytes]):
    """One account's objects by raw name; `stored` tells about one without reading it."""

    def __init__(self, contents: Contents, clock: Clock) -> None:
        self._contents = contents
        self._clock = clock
        self._stored: dict[str, StoredObject] = {}

    def __getitem__(self, name: str) -> bytes:
        found = self.stored(name)
        if found is None:
            raise KeyError(name)
        return found.read()

    def __iter__(self) -> Iterator[str]:
        self._drop_expired()
        return iter(list(self._stored))

    def __len__(self) -> int:
        self._drop_expired()
        return len(self._stored)

    def stored(self, name: str) -> StoredObject | None:
        """The object, None if there is none of that name or its five days are over."""
        found = self._stored.get(name)
        if found is not None and found.age(self._clock) > RETENTION:
            del self._stored[name]
            return None
        return found

    def put(self, name: str, spans: tuple[Span, ...], sha256: str, etag: str) -> None:
        """Let `name` be what is in `spans`."""
        self._stored[name] = StoredObject(self._contents, spans, sha256, etag, datetime.now(UTC), self._clock.now)

    def clear(self) -> None:
        """Forget every object."""
        self._stored.clear()

    def _drop_expired(self) -> None:
        for name in list(self._stored):
            self.stored(name)


def whole_sha256(contents: Contents, spans: tuple[Span, ...]) -> str:
    """The hash of bytes that lie in several places. Blocks."""
    digest = hashlib.sha256()
    with io.BufferedReader(_Reader(contents, spans), _CHUNK) as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
