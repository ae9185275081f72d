"""Files of a feature store, in a folder or behind a URI of an object store. Writes are atomic."""

from __future__ import annotations

import errno
import os
import re
import time
from functools import cached_property
from pathlib import Path

import pyarrow as pa
from pyarrow import fs

from asd_ray.errors import AsdRayError, StorageError
from asd_ray.files import write_atomically

DEAD_SECONDS = 600  # a half-written file that has not changed for so long is from a killed build


class Storage:
    """A flat folder of files.

    Args:
        where: a folder (NFS works too), or a URI that pyarrow supports: ``s3://bucket/prefix``, ``gs://``, ``abfs://``,
            ``hdfs://``. Credentials and endpoints come from the environment: for S3 ``AWS_ACCESS_KEY_ID``,
            ``AWS_SECRET_ACCESS_KEY``, ``AWS_SESSION_TOKEN``, ``AWS_DEFAULT_REGION``, ``AWS_ENDPOINT_URL`` (MinIO, Ceph)
            or an instance's role. Every node of a cluster needs them.

    A local file is written under another name and renamed. An object appears when its upload is complete. A killed
    upload leaves no visible object, but an S3 bucket keeps its parts until a lifecycle rule
    (``AbortIncompleteMultipartUpload``) removes them.
    """

    def __init__(self, where: str | os.PathLike[str]) -> None:
        text = os.fspath(where).removeprefix("file://")
        if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/[^/]", text):
            raise AsdRayError(f"{text}: not a folder or a URI; a URI has two slashes, as in s3://bucket/prefix.")
        self.local = "://" not in text
        self.where = os.path.abspath(os.path.expanduser(text)) if self.local else text

    def __reduce__(self) -> tuple[type[Storage], tuple[str]]:
        return Storage, (self.where,)  # no credentials: every process takes its own

    def __str__(self) -> str:
        return self.where

    @cached_property
    def _opened(self) -> tuple[fs.FileSystem, str]:
        if self.local:
            return fs.LocalFileSystem(), self.where
        try:
            system, path = fs.FileSystem.from_uri(self.where)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise AsdRayError(f"{self.where}: cannot be opened ({_sentence(error)}).") from None
        return system, path.rstrip("/")

    def url(self, name: str) -> str:
        """Path or URI of a file."""
        base, question, options = self.where.partition("?")
        return f"{base.rstrip('/')}/{name}{question}{options}"

    def names(self) -> set[str]:
        """Names of the files in the folder; none if the folder does not exist yet."""
        system, path = self._opened
        try:
            found = system.get_file_info(fs.FileSelector(path, allow_not_found=True))
        except OSError as error:
            raise StorageError(f"{self.where}: cannot be listed ({_sentence(error)}).") from None
        return {info.base_name for info in found if info.type == fs.FileType.File}

    def read(self, name: str) -> pa.Buffer:
        """Read a file into memory.

        Raises:
            FileNotFoundError: there is no such file.
            StorageError: it cannot be read.
        """
        try:
            with self.open(name) as file:
                return file.read_buffer()
        except FileNotFoundError:
            raise
        except OSError as error:
            raise StorageError(f"{self.url(name)}: cannot be read ({_sentence(error)}).") from None

    def open(self, name: str) -> pa.NativeFile:
        """Open a file to read parts of it. Errors are ``OSError``."""
        system, path = self._opened
        return system.open_input_file(f"{path}/{name}")

    def write(self, name: str, content: bytes | pa.Buffer) -> None:
        """Write or replace a file atomically.

        Raises:
            StorageError: the disk is full, or it cannot be written.
        """
        try:
            if self.local:
                write_atomically(Path(self.where, name), lambda beside: Path(beside).write_bytes(content))
            else:
                system, path = self._opened
                with system.open_output_stream(f"{path}/{name}") as file:
                    file.write(content)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error):  # pyarrow loses numbers
                raise StorageError(f"{self.url(name)}: the disk is full; free some space and run it again.") from None
            raise StorageError(f"{self.url(name)}: cannot be written ({_sentence(error)}).") from None

    def delete(self, name: str) -> None:
        """Delete a file, if it exists."""
        system, path = self._opened
        try:
            system.delete_file(f"{path}/{name}")
        except FileNotFoundError:
            pass
        except OSError as error:
            raise StorageError(f"{self.url(name)}: cannot be deleted ({_sentence(error)}).") from None

    def delete_dead_parts(self) -> None:
        """Delete half-written files of killed processes."""
        if not self.local:
            return
        for part in Path(self.where).glob(".*.part"):
            try:
                if time.time() - part.stat().st_mtime > DEAD_SECONDS:
                    part.unlink()
            except FileNotFoundError:  # its writer has just finished
                pass


def _sentence(error: BaseException) -> str:
    return " ".join(str(error).split()).rstrip(".")
