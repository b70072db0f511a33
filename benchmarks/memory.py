"""The peak of resident memory over one call, as the kernel counts it."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path

STATUS = Path("/proc/self/status")


def resident(field: str) -> int:
    """VmRSS or VmHWM of this process, in bytes."""
    for line in STATUS.read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    return 0


def peak_over[T](call: Callable[[], T]) -> tuple[T, int]:
    """What the call returns, and by how many bytes the peak rose above what was resident before it."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # sets the peak back to what is resident now
    before = resident("VmRSS")
    value = call()
    return value, max(resident("VmHWM") - before, 0)
