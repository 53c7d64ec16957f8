"""Object stores, and the local folder that stands for one: inputs that are given as URLs."""

import errno
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cascade.discovery.filters import is_zip
from cascade.errors import CascadeError
from cascade.files import TEMPORARY_PREFIX

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
"""Beginning of a URL. A `Path` has lost its second slash."""

PASSWORD = re.compile(r"(?<=:/)/?[^/@]*:[^/]*@")
"""Name and password in front of the host, also in a `Path`."""


class StoreError(CascadeError):
    """A store does not answer, or refuses: whether there is an object is unknown."""


@dataclass(frozen=True)
class Store:
    """Where URLs are on this machine.

    Attributes:
        folder: Local folder. The file `bucket/a.png` below it stands for `s3://bucket/a.png`.
        prefix: What the URL has in place of the folder: "s3://".
    """

    folder: Path
    prefix: str

    @classmethod
    def of_url(cls, url: str, folder: Path) -> "Store":
        """Return the store of a URL, for which a folder stands.

        Raises:
            CascadeError: The store cannot be used.
        """
        key = open_url(url)[1]
        protocol, _, host = url.partition("://")
        host = host.partition("/")[0]
        if "://" in key or host == key.lstrip("/").partition("/")[0]:  # as a bucket, the host is a part of the path
            host = ""
        elif host and not key.startswith("/"):
            raise CascadeError(
                f"{url}: names an account, which the workers would not know",
                fix="leave it out, and name the account in the settings of the store on all machines",
            )
        return cls(folder, f"{protocol}://{host}{'/' * key.startswith('/')}")

    def path(self, key: str) -> Path:
        """Return the local file of a path in the store, which may or may not contain the prefix."""
        return self.folder / key.removeprefix(self.prefix).lstrip("/")

    def url(self, path: Path) -> str:
        """Return the URL of a file below the folder."""
        return f"{self.prefix}{path.relative_to(self.folder).as_posix()}"

    def with_urls(self, text: str) -> str:
        """Return a text with URLs in place of paths below the folder."""
        return text.replace(f"{self.folder}/", self.prefix).replace(str(self.folder), self.prefix)

    def may_exist(self, path: Path) -> bool:
        """Return True if there is an object for a path below the folder, or a zip file that may contain it.

        Raises:
            StoreError: That cannot be found out.
        """
        zips = (parent for parent in path.parents if is_zip(parent.name) and parent.is_relative_to(self.folder))
        return any(map(self.info, (path, *zips)))

    def info(self, path: Path) -> dict[str, Any] | None:
        """Return what the store says about the object of a path below the folder; None without an object.

        Raises:
            StoreError: It says nothing.
        """
        url = self.url(path)
        filesystem, key = open_url(url)
        with store_errors(url):
            try:
                return dict(filesystem.info(key))
            except FileNotFoundError:
                return None

    def fetch(self, path: Path) -> None:
        """Copy an object to its file below the folder, whole or not at all.

        Raises:
            CascadeError: It cannot be read, or the file cannot be written.
        """
        url = self.url(path)
        filesystem, key = open_url(url)
        temporary = path.with_name(f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}")
        with store_errors(url):
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                filesystem.get_file(key, str(temporary))
                temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)


def is_url(path: object) -> bool:
    """Return True for a URL such as s3://bucket/scans."""
    return URL.match(str(path)) is not None


def without_password(url: str) -> str:
    """Return a URL for a message, with dots in place of a name and password."""
    return PASSWORD.sub("/...@", url)


def open_url(url: str) -> "tuple[AbstractFileSystem, str]":
    """Return the file system of a URL, and the path in it.

    Raises:
        CascadeError: It is no URL, contains a password, its protocol is unknown, or the package that implements it is
            not installed.
    """
    if PASSWORD.search(url):  # it would be in messages, logs and results
        raise CascadeError(
            f"{without_password(url)}: contains a password",
            fix="remove it; the package of the store reads it from its settings or from environment variables",
        )
    if "://" not in url:
        raise CascadeError(f"{url}: is a URL that has lost a slash", fix="give a URL as text instead of a Path")
    try:
        from fsspec.core import url_to_fs
    except ImportError:
        raise CascadeError(f"{url}: URLs need fsspec", fix="pip install 'cascade-mri[cluster]'") from None
    try:
        result: tuple[Any, str] = url_to_fs(url)
    except ImportError as error:  # its message names the package: "Install s3fs to access S3"
        raise CascadeError(
            f"{url}: needs a package that is not installed ({error})", fix="install it on all machines of the cluster"
        ) from error
    except ValueError as error:
        raise CascadeError(f"{url}: cannot be used ({error})", fix="give s3://, gs:// or a path") from error
    return result


@contextmanager
def store_errors(url: str, *, action: str = "fetched") -> Iterator[None]:
    """Convert any exception in the block to a CascadeError that names the URL: each store raises types of its own.

    Args:
        url: What the block reads or writes.
        action: What cannot be done: "fetched", "created", "written" or "removed".

    Raises:
        StoreError: It cannot be done.
        CascadeError: There is nothing to fetch.
    """
    try:
        yield
    except CascadeError:
        raise
    except Exception as error:
        if isinstance(error, FileNotFoundError) and action == "fetched":
            raise CascadeError(f"{url}: there is no such file or folder", fix="check the URL") from None
        is_full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        fix = "check network, credentials and permissions on all machines"
        if is_full:
            fix = "free space at --out or, if that is a URL, in the folder for temporary files (TMPDIR)"
        elif action == "written":
            fix += ", and continue with --resume"
        raise StoreError(f"{url}: cannot be {action} ({reason})", fix=fix) from error
