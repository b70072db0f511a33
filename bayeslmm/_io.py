"""Files that are whole or as they were."""

from __future__ import annotations

import os
import secrets
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from bayeslmm.errors import StoreError


def as_path(given: Any) -> Path:
    """A path from what a user gave. Errors: StoreError for what names no file."""
    if not isinstance(given, str | os.PathLike) or not os.fspath(given) or "\0" in str(given):
        raise StoreError(f"{given!r:.80} names no file", "path", 'give a path, such as "model.fit"')
    return Path(given)


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file through a temporary one beside it: new or untouched, never half.

    Errors: StoreError with the bytes needed when the folder is missing, full or closed to writing.
    """
    if not path.name:
        raise StoreError("the path names a folder", str(path), "name a file in it")
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        if path.exists() and not path.is_file() and not path.is_dir():
            raise StoreError("there is a device or a pipe of that name", str(path), "name a file")
        _write_new(temporary, content)
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        raise StoreError(
            f"the file could not be written: {reason}", f"{path}, {len(content):,} bytes", "check folder, space and permission"
        ) from None
    finally:
        with suppress(OSError):
            temporary.unlink()


def _write_new(path: Path, content: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    if sys.platform == "win32":
        flags |= os.O_BINARY
    else:
        flags |= os.O_NOFOLLOW
    with os.fdopen(os.open(path, flags, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Make the new name itself last; some systems cannot open a folder, where there is nothing to do."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
