"""Submitted files: content-addressed, written once, never opened here."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from contest.errors import RefusedError, UsageError
from scoring.sandbox.limits import scratch_folder
from scoring.sandbox.limits import sweep as sweep_scratch

_SHA256 = re.compile(r"[0-9a-f]{64}")
CHUNK = 1024 * 1024
ENDINGS = (".pt", ".safetensors", ".onnx")
_INCOMING, _OPENED = "incoming-", "opened-"  # beginnings of the names of what is there for a moment only


class TooLargeError(RefusedError):
    """A file has more bytes than the contest allows."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"the file has more than {limit} bytes, the limit of this contest")


@dataclass(frozen=True)
class StoredFile:
    """The address of stored content."""

    sha256: str
    size_bytes: int


@dataclass
class Incoming:
    """A file on its way in: `write` what arrives, then `keep` it. Nothing stays when the block is left before."""

    store: FileStore
    limit: int
    target: BinaryIO
    path: Path
    digest: hashlib._Hash = field(default_factory=hashlib.sha256)
    size_bytes: int = 0

    def write(self, chunk: bytes) -> None:
        """Raises TooLargeError as soon as the limit is passed."""
        self.size_bytes += len(chunk)
        if self.size_bytes > self.limit:
            raise TooLargeError(self.limit)
        self.digest.update(chunk)
        self.target.write(chunk)

    def read(self, path: Path) -> None:
        """Take in a file of this machine. Raises UsageError when it cannot be read."""
        try:
            with path.open("rb") as source:
                while chunk := source.read(CHUNK):
                    self.write(chunk)
        except OSError as error:
            raise UsageError(f"file '{path}' cannot be read: {error.strerror}") from error

    def seal(self) -> StoredFile:
        """Everything has arrived: bring it to the disk, but not yet to its address. Raises RefusedError if empty."""
        if not self.size_bytes:
            raise RefusedError("the file is empty: 0 bytes arrived")
        self.target.flush()
        os.fsync(self.target.fileno())
        return StoredFile(self.digest.hexdigest(), self.size_bytes)

    def keep(self) -> StoredFile:
        """Move the content to its address; on disk for good when this returns. Raises RefusedError if empty."""
        stored = self.seal()
        path = self.store.path(stored.sha256)
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path.replace(path)  # atomic; the same content twice is the same file
        _sync_directory(path.parent)
        return stored


class FileStore:
    """A directory of files named by their SHA-256, two levels deep."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def path(self, sha256: str) -> Path:
        """Where content lies. Only a hash makes a path: no name from outside ever does."""
        if not _SHA256.fullmatch(sha256):
            raise UsageError(f"'{sha256[:80]}' is no SHA-256 in lower-case hexadecimal digits")
        return self.directory / sha256[:2] / sha256

    @contextmanager
    def incoming(self, limit: int) -> Iterator[Incoming]:
        """Take in at most `limit` bytes."""
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor, name = tempfile.mkstemp(prefix=_INCOMING, dir=self.directory)
        try:
            with os.fdopen(descriptor, "wb") as target:
                yield Incoming(self, limit, target, Path(name))
        finally:
            Path(name).unlink(missing_ok=True)

    def take(self, chunks: Iterable[bytes], limit: int) -> StoredFile:
        """Store everything that `chunks` gives."""
        with self.incoming(limit) as incoming:
            for chunk in chunks:
                incoming.write(chunk)
            return incoming.keep()

    def folders(self) -> Iterator[list[str]]:
        """The hashes of all stored files, folder by folder."""
        for folder in sorted(self.directory.glob("[0-9a-f][0-9a-f]")):
            yield sorted(path.name for path in folder.iterdir() if _SHA256.fullmatch(path.name))

    def age_s(self, sha256: str) -> float:
        """How long ago the content arrived (last)."""
        return time.time() - self.path(sha256).stat().st_mtime

    def remove(self, sha256: str) -> int:
        """Delete content; gives its bytes."""
        path = self.path(sha256)
        size_bytes = path.stat().st_size
        path.unlink()
        return size_bytes

    def verify(self, sha256: str) -> bool:
        """Whether the content is there and still has its hash."""
        try:
            with self.path(sha256).open("rb") as source:
                return hashlib.file_digest(source, "sha256").hexdigest() == sha256
        except FileNotFoundError:
            return False

    @contextmanager
    def opened_as(self, sha256: str, name: str) -> Iterator[Path]:
        """The content under a name that says its format: readers choose by the ending, and an address has none.

        The participant's ending counts if it is one of the three, else the first bytes do.
        """
        source = self.path(sha256)
        ending = Path(name).suffix.lower()
        with scratch_folder(_OPENED, self.directory) as folder:
            path = folder / f"model{ending if ending in ENDINGS else _sniff(source)}"
            try:
                path.hardlink_to(source)
            except OSError:  # a file system without hard links
                shutil.copyfile(source, path)
            yield path

    def sweep(self, older_than: float) -> int:
        """Remove what interrupted uploads (modified before the time stamp) and killed workers left; gives how many."""
        count = sweep_scratch(_OPENED, self.directory)
        for path in self.directory.glob(f"{_INCOMING}*"):
            try:
                if path.stat().st_mtime < older_than:
                    path.unlink()
                    count += 1
            except FileNotFoundError:  # finished meanwhile
                continue
        return count


def _sniff(path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(9)
    if head[8:] == b"{":  # the length of the header, then JSON
        return ".safetensors"
    return ".onnx" if head[:1] == b"\x08" else ".pt"  # protobuf's field 1; a zip file, or refused as none


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
