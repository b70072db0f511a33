"""A worker process and the line of requests to it, with a limit of time for each answer."""

from __future__ import annotations

import json
import os
import resource
import select
import subprocess
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
MEMORY_LIMIT = 16 * 2**30


class TookTooLongError(Exception):
    """No answer within the limit; the worker was ended."""


class Worker:
    """One library on one problem, in its own process.

    limit : seconds for each answer
    threads : of BLAS, OpenMP and Rayon
    """

    def __init__(self, command: list[str], *, limit: float, threads: int) -> None:
        numbers = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"), str(threads))
        self.limit = limit
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            bufsize=1,
            cwd=HERE.parent,
            env=os.environ | numbers,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT)),
        )

    def read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], self.limit)
        if not ready:
            self.close()
            raise TookTooLongError(f"> {self.limit:.0f} s")
        line = self.process.stdout.readline()
        if not line:
            return {"error": f"ended with status {self.process.wait()}"}
        answer: dict[str, Any] = json.loads(line)
        return answer

    def ask(self, **request: Any) -> dict[str, Any]:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
        except BrokenPipeError:
            return {"error": f"ended with status {self.process.wait()}"}
        return self.read()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
