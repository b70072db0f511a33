"""The file that a fit is kept in: a zip of one JSON text and plain arrays, no compression, no code, and a checksum of every byte.

The archive comment ends with the SHA-256 of all bytes before it, so that nothing is read of a file that was altered or cut short. Sizes are
compared with what is there before anything is allocated.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import stat
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bayeslmm.errors import FormatError, MismatchError, StoreError
from bayeslmm.spec.atomic import write_atomically

FORMAT = "bayeslmm fit"
VERSION = 1
CONTENT = "fit.json"
LARGEST = 1 << 36
"""Bytes of the largest file that is opened."""

_DIGEST = 64
_KINDS = "biufc"
_DATED = (1980, 1, 1, 0, 0, 0)


def write_container(path: Path, content: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write a file at exactly this path, or leave what is there. Errors: StoreError."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        numbered = {name: f"{number}.npy" for number, name in enumerate(arrays)}
        told = {"format": FORMAT, "version": VERSION, "arrays": numbered, "content": content}
        archive.writestr(zipfile.ZipInfo(CONTENT, _DATED), json.dumps(told, allow_nan=False, ensure_ascii=False))
        for name, member in numbered.items():
            archive.writestr(zipfile.ZipInfo(member, _DATED), _npy(arrays[name]))
        archive.comment = b"sha256:" + b"0" * _DIGEST
    body = stream.getvalue()[:-_DIGEST]
    write_atomically(path, body + hashlib.sha256(body).hexdigest().encode())


def read_container(path: Path) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """What `write_container` wrote.

    Errors: StoreError for a file that cannot be read, FormatError for one that is not ours or was cut short, MismatchError for one that was
    altered or is newer than this package.
    """
    data = _content(path)
    _demand_whole(data, path)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return _members(archive, path)
    except (zipfile.BadZipFile, json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise FormatError(f"the file cannot be taken apart: {error}", str(path), "save the fit again") from None


def _content(path: Path) -> bytes:
    """The bytes of a regular file; a pipe or a device is not waited for."""
    try:
        with open(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)), "rb") as file:
            state = os.fstat(file.fileno())
            if not stat.S_ISREG(state.st_mode) or state.st_size > LARGEST:
                raise StoreError("this is no regular file, or too large for a saved fit", str(path), "name a file written by save()")
            return file.read()
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        raise StoreError(f"the file cannot be read: {reason}", str(path), "name a file written by save()") from None


def _demand_whole(data: bytes, path: Path) -> None:
    body, digest = data[:-_DIGEST], data[-_DIGEST:]
    if not data.startswith(b"PK\x03\x04") or not body.endswith(b"sha256:"):
        raise FormatError("this is no saved fit, or one that was cut short", f"{path}, {len(data):,} bytes", "save the fit again")
    if hashlib.sha256(body).hexdigest().encode() != digest:
        raise MismatchError("the file was altered since it was written: its checksum differs", str(path), "save the fit again")


def _members(archive: zipfile.ZipFile, path: Path) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    if any(info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size for info in archive.infolist()):
        raise FormatError("members of the file are compressed, which save() does not do", str(path), "save the fit again")
    told = json.loads(archive.read(CONTENT))
    if told["format"] != FORMAT:
        raise FormatError("this is no saved fit", str(path), "name a file written by save()")
    if told["version"] != VERSION:
        raise MismatchError(
            f"the file has version {told['version']} of the format, this package reads {VERSION}",
            str(path),
            "update bayeslmm, or save the fit again",
        )
    arrays = {name: _array(archive.read(member), f"{path}, {member}") for name, member in told["arrays"].items()}
    return told["content"], arrays


def _npy(array: NDArray[Any]) -> bytes:
    if array.dtype.kind not in _KINDS:
        raise StoreError(f"an array of {array.dtype} cannot be stored", "save", "turn the column into numbers or text first")
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.asarray(array), version=(1, 0), allow_pickle=False)
    return stream.getvalue()


def _array(data: bytes, where: str) -> NDArray[Any]:
    """An array whose header asks for exactly the bytes that follow it."""
    stream = io.BytesIO(data)
    if np.lib.format.read_magic(stream) != (1, 0):
        raise FormatError("an array has another version of the npy format", where, "save the fit again")
    shape, columnwise, dtype = np.lib.format.read_array_header_1_0(stream)
    left = len(data) - stream.tell()
    if dtype.kind not in _KINDS or any(side < 0 for side in shape) or math.prod(shape) * dtype.itemsize != left:
        what = f"an array says {' x '.join(map(str, shape))} of {dtype} and has {left:,} bytes"
        raise FormatError(what, where, "save the fit again")
    values = np.frombuffer(data, dtype, offset=stream.tell())
    return values.reshape(shape, order="F" if columnwise else "C").copy(order="K")
