"""Parts are added up anywhere: by processes to the bit, by whatever scheduler Dask uses to rounding."""

from __future__ import annotations

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.errors import DataError, NonFiniteError, SpecificationError
from bayeslmm.partitions.partitions import Partitions
from tests.partitions.test_partitions import data, same_fit

pytestmark = pytest.mark.filterwarnings("ignore::bayeslmm.errors.BayesLMMWarning")

FORMULA = "y ~ x + f + (x | subject) + (1 | item)"


def files(folder: Path) -> list[Path]:
    """Parquet files of several row groups, in another order than levels are."""
    paths = []
    for number, part in enumerate(np.array_split(np.random.default_rng(0).permutation(len(data())), 3)):
        paths.append(folder / f"{number}.parquet")
        data().iloc[part].astype({"subject": str}).to_parquet(paths[-1], row_group_size=20)
    return paths


def test_sums_do_not_depend_on_the_number_of_processes(tmp_path: Path) -> None:
    paths = files(tmp_path)
    one, two = (blm.from_partitions(FORMULA, paths, rows=20, workers=workers).fit() for workers in (None, 2))
    assert one.criterion == two.criterion
    assert one.fixef.equals(two.fixef)
    assert abs(one.criterion - blm.LMM(FORMULA, data()).fit().criterion) < 1e-9


def test_an_error_of_another_process_is_the_error_here() -> None:
    bad = [data(), data().assign(x=np.inf)]
    with pytest.raises(NonFiniteError) as caught:
        blm.from_partitions(FORMULA, bad, workers=2)
    assert caught.value.where.startswith("partition 2")
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("source", "options"),
    [
        (lambda: [data()], {"workers": 2}),
        ([data()], {"workers": 0}),
        ([data(), data()], {"workers": 2, "functions": {"h": lambda v: 2 * v}}),
    ],
)
def test_what_workers_cannot_share_is_refused(source: Any, options: dict[str, Any]) -> None:
    formula = "y ~ h(x) + (1 | subject)" if "functions" in options else FORMULA
    with pytest.raises(SpecificationError) as caught:
        blm.from_partitions(formula, source, **options)
    assert caught.value.remedy


# -- Dask ----------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheduler", ["synchronous", "threads", pytest.param("processes", marks=pytest.mark.slow)])
def test_a_dask_frame_is_added_up_by_the_scheduler_in_use(scheduler: str) -> None:
    dask = pytest.importorskip("dask")
    frame = pytest.importorskip("dask.dataframe").from_pandas(data().reset_index(drop=True), npartitions=11)
    with dask.config.set(scheduler=scheduler):
        parts = blm.from_partitions(FORMULA, frame)
    same_fit(blm.LMM(FORMULA, data()).fit(), parts.fit())


def test_only_sums_come_back_from_dask(monkeypatch: pytest.MonkeyPatch) -> None:
    dask = pytest.importorskip("dask")
    frame = pytest.importorskip("dask.dataframe").from_pandas(data().reset_index(drop=True), npartitions=5)
    came: list[Any] = []
    compute = dask.compute

    def watched(*args: Any, **options: Any) -> Any:
        found = compute(*args, **options)
        came.extend(found)
        return found

    monkeypatch.setattr(dask, "compute", watched)
    blm.from_partitions(FORMULA, frame)
    assert came
    assert not any(isinstance(found, pd.DataFrame) for found in came)


def test_an_error_of_a_partition_of_dask_names_it() -> None:
    frame = pytest.importorskip("dask.dataframe").from_pandas(data().assign(x=np.inf).reset_index(drop=True), npartitions=2)
    with pytest.raises(DataError, match="partition 1"):
        blm.from_partitions(FORMULA, frame)


@pytest.mark.slow
def test_a_cluster_gives_the_same_sums_and_survives_a_worker() -> None:
    distributed = pytest.importorskip("distributed")
    frame = pytest.importorskip("dask.dataframe").from_pandas(pd.concat([data()] * 20, ignore_index=True), npartitions=40)
    whole = blm.LMM(FORMULA, pd.concat([data()] * 20, ignore_index=True)).fit()
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        assert abs(blm.from_partitions(FORMULA, frame).fit().criterion - whole.criterion) < 1e-8
        victim = next(iter(client.run(os.getpid).values()))
        timer = threading.Timer(0.3, os.kill, (victim, signal.SIGKILL))
        timer.start()
        again = blm.from_partitions(FORMULA, frame).fit()
        timer.join()
        assert abs(again.criterion - whole.criterion) < 1e-8


def test_no_more_processes_start_than_cores_are_good_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    assert Partitions([data()], workers=10**9).workers == 8
    assert Partitions([data()], workers=3).workers == 3
    started: list[int] = []

    def pool(workers: int) -> Any:
        started.append(workers)
        return ThreadPoolExecutor(1)

    monkeypatch.setattr("bayeslmm.inference.intervals.bootstrap.ThreadPoolExecutor", pool)
    fit = blm.LMM("y ~ x + (1 | subject)", data()).fit()
    many, one = (fit.bootstrap(9, seed=1, workers=workers) for workers in (10**9, 1))
    assert started == [8]
    pd.testing.assert_frame_equal(many.frame, one.frame, rtol=1e-7)
