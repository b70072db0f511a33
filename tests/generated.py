"""How many generated inputs a costly test takes: few as a rule, twenty times as many under `make fuzz`."""

from __future__ import annotations

from hypothesis import settings

MANY = max(1, settings().max_examples // 50)


def examples(count: int) -> settings:
    """Settings of a test that is given `count` inputs in an ordinary run."""
    return settings(max_examples=count * MANY)
