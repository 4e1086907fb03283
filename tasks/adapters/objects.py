"""Objects below one prefix of an S3-compatible service, by pyarrow. Owner of pyarrow.fs."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from dsol_core.types import DsolError, UsageError

CHUNK = 8 * 2**20  # bytes that are held while a file is copied
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")  # what other S3 clients read; pyarrow does not


class ObjectsError(DsolError):
    """The service cannot be reached, refuses, or lost something while it was copied."""


def is_object_uri(place: str | Path) -> bool:
    """Tell whether a store's name is the address of objects."""
    return str(place).startswith("s3:")


class Objects:
    """Objects below `s3://bucket/prefix`, by names such as "evaluate/0123/artifact.json"; picklable.

    An object appears when its last byte is there: a killed upload leaves nothing to be seen, and one that an exception
    ends is removed.
    """

    def __init__(self, uri: str) -> None:
        """Parse the address; nothing is sent yet.

        Args:
            uri: s3://bucket/prefix, with pyarrow's options behind `?` (endpoint_override, scheme, region).

        Raises:
            UsageError: it names no bucket, or holds a password.
        """
        parts = urlsplit(uri)
        if parts.scheme != "s3" or not parts.hostname:
            raise UsageError(f"{uri!r} names no bucket; expected s3://bucket/prefix")
        if "@" in parts.netloc:
            raise UsageError(
                "the store's address holds a password, which would be written into every record; set "
                "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile, instead"
            )
        self.uri = uri
        self._system: Any = None
        self._prefix = ""

    def __getstate__(self) -> dict[str, Any]:
        return {"uri": self.uri, "_system": None, "_prefix": ""}

    def filesystem(self) -> tuple[Any, str]:
        """Return pyarrow's file system and the prefix with its bucket, as Ray Train takes them."""
        if self._system is None:
            from pyarrow import ArrowInvalid, fs

            with self._told("opening"):
                try:
                    self._system, prefix = fs.FileSystem.from_uri(_with_endpoint(self.uri))
                except ArrowInvalid as error:
                    raise UsageError(f"the store's address {self.uri} is refused: {error}") from error
            self._prefix = prefix.rstrip("/")
        return self._system, self._prefix

    def check(self) -> None:
        """Ask the service for the bucket, so that a wrong one is told before hours of work.

        Raises:
            ObjectsError: it does not answer, refuses, or has no such bucket.
        """
        from pyarrow import fs

        system, prefix = self.filesystem()
        bucket = prefix.split("/")[0]
        with self._told("looking for"):
            found = system.get_file_info(bucket).type
        if found == fs.FileType.NotFound:
            raise ObjectsError(f"there is no bucket {bucket} for the store {self.uri.partition('?')[0]}; create it")

    def _place(self, name: str) -> tuple[Any, str]:
        system, prefix = self.filesystem()
        return system, f"{prefix}/{name}" if name else prefix

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise
        except OSError as error:
            raise ObjectsError(
                f"{what} {self.uri.partition('?')[0]} failed: {error}. Expected a bucket that exists and credentials "
                "in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or a profile or role); another service than Amazon's "
                "needs AWS_ENDPOINT_URL"
            ) from error

    def read(self, name: str) -> bytes | None:
        """Return the bytes of a small object, or None where there is none."""
        system, path = self._place(name)
        try:
            with self._told(f"reading {name} of"), system.open_input_stream(path) as stream:
                return bytes(stream.read())
        except FileNotFoundError:
            return None

    def write(self, name: str, content: bytes) -> None:
        """Write a small object: readers see the old one or the new one."""
        system, path = self._place(name)
        with self._told(f"writing {name} to"), system.open_output_stream(path) as stream:
            stream.write(content)

    def upload(self, name: str, source: Path) -> None:
        """Copy a file to an object.

        Raises:
            ObjectsError: the object has another size than the file; the reader of a part sees that too.
        """
        system, path = self._place(name)
        try:
            with self._told(f"writing {name} to"), source.open("rb") as file, system.open_output_stream(path) as stream:
                shutil.copyfileobj(file, stream, CHUNK)
        except BaseException:  # closing the stream has published what was copied
            with suppress(OSError):
                system.delete_file(path)
            raise
        sent, expected = self.sizes(name).get(name), source.stat().st_size
        if sent != expected:
            raise ObjectsError(f"{name} has {sent} bytes in {self.uri.partition('?')[0]}, not {expected}; try again")

    def download(self, name: str, target: Path) -> bool:
        """Copy an object to a file, which appears when it is complete; False where there is no object."""
        system, path = self._place(name)
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f".part-{os.getpid()}-{uuid.uuid4().hex[:8]}")  # names may be as long as they can be
        try:
            with self._told(f"reading {name} of"), system.open_input_stream(path) as stream, part.open("wb") as file:
                shutil.copyfileobj(stream, file, CHUNK)
            part.replace(target)
            return True
        except FileNotFoundError:
            return False
        finally:
            part.unlink(missing_ok=True)

    def sizes(self, name: str) -> dict[str, int]:
        """Return name -> bytes of an object, or of all objects below a name."""
        from pyarrow import fs

        system, path = self._place(name)
        with self._told(f"listing {name} of"):
            one = system.get_file_info(path)
            if one.type == fs.FileType.File:
                return {name: int(one.size)}
            found = system.get_file_info(fs.FileSelector(path, recursive=True, allow_not_found=True))
        start = len(self._prefix) + 1
        return {info.path[start:]: int(info.size) for info in found if info.type == fs.FileType.File}

    def folders(self, name: str = "") -> list[str]:
        """Return the names of what looks like folders directly below a name."""
        from pyarrow import fs

        system, path = self._place(name)
        with self._told(f"listing {name} of"):
            found = system.get_file_info(fs.FileSelector(path, allow_not_found=True))
        return sorted(info.base_name for info in found if info.type == fs.FileType.Directory)

    def delete(self, name: str) -> None:
        """Remove everything below a name; nothing there is no error."""
        system, path = self._place(name)
        with self._told(f"deleting {name} of"):
            try:
                system.delete_dir(path)
            except FileNotFoundError:
                return


def _with_endpoint(uri: str) -> str:
    """Add the endpoint that the environment names, unless the address does."""
    address = next((os.environ[name] for name in _ENDPOINTS if os.environ.get(name)), None)
    if address is None or "endpoint_override=" in uri:
        return uri
    parts = urlsplit(address)
    options = urlencode({"endpoint_override": parts.netloc + parts.path.rstrip("/"), "scheme": parts.scheme})
    return f"{uri}{'&' if '?' in uri else '?'}{options}"
