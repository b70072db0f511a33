"""Files that are whole or as they were."""

from __future__ import annotations

import glob
import os
import re
import secrets
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from bayeslmm.errors import StoreError, show_value

if sys.platform == "win32":
    fcntl = None
else:
    import fcntl


PERMISSIONS = 0o777
"""Of a mode: what is written is no program of another user."""


def as_path(path: Any) -> Path:
    """A path from what a user gave. Errors: StoreError for what names no file."""
    if not isinstance(path, str | os.PathLike) or not os.fspath(path) or "\0" in str(path):
        raise StoreError(f"{show_value(path)} names no file", "path", 'give a path, such as "model.fit"')
    try:
        os.fsencode(path)
    except UnicodeEncodeError:  # a half of a surrogate pair, which no file system holds
        raise StoreError(f"{os.fspath(path)!a} names no file", "path", 'give a path, such as "model.fit"') from None
    return Path(path)


DOCUMENTS = {
    **dict.fromkeys((".html", ".htm", ".xhtml"), "html"),
    ".tex": "latex",
    ".md": "markdown",
    **{f".{name}": name for name in ("docx", "rtf", "doc", "odt", "pdf", "xlsx", "pptx", "ipynb", "csv")},
}
"""Ending of a file -> the format that programs expect in it."""


DATED = (1980, 1, 1, 0, 0, 0)
"""When the members of every zipped file are said to be made: what is equal is equal files."""


def document_format(path: Any) -> str | None:
    """The format that a file's ending announces; None where it announces none. Errors: StoreError for what names no file."""
    return DOCUMENTS.get(as_path(path).suffix.lower())


def require_html_place(path: Any) -> None:
    """Refuse a place for a page of HTML whose ending announces something else; None is no place. Errors: StoreError."""
    if path is not None and document_format(path) not in (None, "html"):
        what = f"the report is a page of HTML, and {as_path(path).name!r} announces {document_format(path)}"
        raise StoreError(what, "path", 'end it in ".html": browsers print it to PDF, and word processors open it')


def require_regular(path: Path) -> None:
    """Refuse a pipe or a device, which could be waited for without end. Errors: StoreError."""
    if path.exists() and not path.is_file():
        raise StoreError("this is no regular file", str(path), "name a file")


def make_folder(path: Path) -> None:
    """Make a folder and those above it. Errors: StoreError where a file is in the way, or the place is closed to writing."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        raise StoreError(f"the folder could not be made: {reason}", str(path), "name another folder, or check permissions") from None


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file through a temporary one beside it: new or untouched, never half.

    A file that is there keeps its permissions and, where the user belongs to it, its group; a new one has those of the umask. Of a
    symbolic link the file that it names is replaced. Temporary files that a killed process left behind are removed.

    Errors: StoreError with the bytes needed when the folder is missing, full or closed to writing.
    """
    if not path.name:
        raise StoreError("the path names a folder", str(path), "name a file in it")
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        path = path.resolve() if path.is_symlink() else path
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        if path.exists() and not path.is_file() and not path.is_dir():
            raise StoreError("there is a device or a pipe of that name", str(path), "name a file")
        _remove_leftovers(path)
        _replace(path, temporary, content)
        _sync_folder(path.parent)
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        raise StoreError(
            f"the file could not be written: {reason}", f"{path}, {len(content):,} bytes", "check folder, space and permission"
        ) from None
    finally:
        with suppress(OSError):
            temporary.unlink()


def _replace(path: Path, temporary: Path, content: bytes) -> None:
    """Write the temporary file and give it the name; it stays locked until then, which tells it from what a killed process left."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    if sys.platform == "win32":
        flags |= os.O_BINARY
    else:
        flags |= os.O_NOFOLLOW
    before = path.stat() if path.exists() else None
    with os.fdopen(os.open(temporary, flags, 0o666 if before is None else 0o600), "wb") as file:
        _lock(file.fileno())
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
        if before is not None and sys.platform != "win32":
            with suppress(OSError):  # of a group that the user is not in
                os.fchown(file.fileno(), -1, before.st_gid)
            os.fchmod(file.fileno(), before.st_mode & PERMISSIONS)
        if sys.platform != "win32":
            os.replace(temporary, path)
    if sys.platform == "win32":
        os.replace(temporary, path)


def _lock(handle: int) -> bool:
    """Whether the file is ours now: a lock ends with its process. True where files cannot be locked."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _remove_leftovers(path: Path) -> None:
    """Remove temporary files for the same name that no process holds."""
    if fcntl is None:
        return
    for found in path.parent.glob(f".{glob.escape(path.name)}.*"):
        if re.fullmatch(r"[0-9a-f]{16}", found.name.rpartition(".")[2]) and found.is_file() and not found.is_symlink():
            with suppress(OSError), found.open("rb") as file:
                if _lock(file.fileno()):
                    found.unlink()


def _sync_folder(folder: Path) -> None:
    """Make the new name itself last; some systems cannot open a folder, where there is nothing to do."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
