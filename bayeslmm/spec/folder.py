"""Files that a spec file names: inside its own folder, regular, not too large, unchanged."""

from __future__ import annotations

import hashlib
import os
import stat
import sys
from pathlib import Path, PurePosixPath, PureWindowsPath

from bayeslmm.errors import SpecificationError

MAX_DATA_BYTES = 1024**3
_REMEDY = "name a file beside the spec file or in a folder below it"


def demand_inside(name: str, where: str) -> None:
    """Refuse a name that is absolute, leads upwards, is a URL or holds control characters, by its letters alone.

    where : file and key path, as the error shows them
    """
    if not name or any(ord(letter) < 32 or ord(letter) == 127 for letter in name):
        raise SpecificationError("a file name is empty or holds control characters", where, _REMEDY)
    if "://" in name or name.lower().startswith(("data:", "file:")):
        raise SpecificationError(f"{name!r:.80} is a URL", where, "download the file first; nothing is fetched")
    if "\\" in name or PurePosixPath(name).is_absolute() or PureWindowsPath(name).drive:
        raise SpecificationError(f"{name!r:.80} is not a relative path with forward slashes", where, _REMEDY)
    if ".." in PurePosixPath(name).parts:
        raise SpecificationError(f"{name!r:.80} leads out of the folder", where, _REMEDY)


def read_inside(folder: Path, name: str, where: str, *, limit: int = MAX_DATA_BYTES, sha256: str | None = None) -> bytes:
    """The content of a file below `folder`; links may not lead out, devices and pipes are refused, so is another checksum.

    limit : bytes
    Errors: SpecificationError with file and key path.
    """
    demand_inside(name, where)
    try:
        home = folder.resolve(strict=True)
        path = (home / name).resolve(strict=True)
    except (OSError, RuntimeError):
        raise SpecificationError(f"there is no file {name!r:.80}", f"{where}: below {folder}", _REMEDY) from None
    if not path.is_relative_to(home):
        raise SpecificationError(f"{name!r:.80} is a link that leads out of the folder", where, _REMEDY)
    content = read_regular(path, where, limit)
    if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256.lower():
        raise SpecificationError(
            f"{name!r:.80} is not the file that its checksum was taken of", where, "restore the file, or correct sha256"
        )
    return content


def read_regular(path: Path, where: str, limit: int) -> bytes:
    """The content of a regular file of at most `limit` bytes. Not blocking on a pipe that took its place."""
    flags = os.O_RDONLY
    if sys.platform == "win32":
        flags |= os.O_BINARY
    else:
        flags |= os.O_NONBLOCK
    try:
        handle = os.open(path, flags)
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        raise SpecificationError(f"the file cannot be read: {reason}", f"{where}: {path}", "check its name and its permissions") from None
    try:
        _demand_regular(os.fstat(handle), path, where, limit)
        with os.fdopen(handle, "rb", closefd=False) as file:
            content = file.read(limit + 1)
    finally:
        os.close(handle)
    if len(content) > limit:
        raise SpecificationError("the file grew beyond the limit while it was read", f"{where}: {path}", f"the limit is {limit:,}")
    return content


def _demand_regular(found: os.stat_result, path: Path, where: str, limit: int) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise SpecificationError("this is not a regular file", f"{where}: {path}", "name a file")
    if found.st_size > limit:
        what = f"the file has {found.st_size:,} bytes"
        raise SpecificationError(what, f"{where}: {path}", f"the limit is {limit:,}; read it yourself and pass data=")
