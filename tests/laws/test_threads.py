"""One BLAS thread around small work, and whatever the caller had before afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import pytest
from threadpoolctl import ThreadpoolController, threadpool_limits

from bayeslmm.likelihood.kernel import TUNING
from bayeslmm.likelihood.threads import one_thread

LIBRARIES = ThreadpoolController().select(user_api="blas")


def threads() -> set[int]:
    return {library.get_num_threads() for library in LIBRARIES.lib_controllers}


@pytest.fixture
def two() -> Iterator[None]:
    """The user's own limit; where the libraries have no threads at all there is nothing to test."""
    with threadpool_limits(2, user_api="blas"):
        if threads() != {2}:
            pytest.skip("BLAS without threads")
        yield


@pytest.mark.usefixtures("two")
def test_one_inside_and_what_was_there_afterwards() -> None:
    with one_thread():
        assert threads() == {1}
        with one_thread():
            assert threads() == {1}
        assert threads() == {1}
    assert threads() == {2}


@pytest.mark.usefixtures("two")
def test_a_user_may_change_the_threads_between_calls() -> None:
    for asked in (1, 2, 1, 2):
        with threadpool_limits(asked, user_api="blas"):
            with one_thread():
                assert threads() == {1}
            assert threads() == {asked}


@pytest.mark.usefixtures("two")
def test_large_work_keeps_all_threads() -> None:
    with one_thread(TUNING.one_thread_columns):
        assert threads() == {2}


@pytest.mark.usefixtures("two")
def test_an_error_inside_sets_the_threads_back() -> None:
    with pytest.raises(np.linalg.LinAlgError), one_thread():
        raise np.linalg.LinAlgError
    assert threads() == {2}


@pytest.mark.parametrize("first", [0, 1])
def test_overlapping_threads_leave_what_was_there(first: int) -> None:
    """Whichever of two threads leaves first: the one that came second must not set back the limit that it found."""
    entered, left = Barrier(2, timeout=30), Barrier(2, timeout=30)
    inside: list[set[int]] = []

    def work(number: int) -> None:
        if number == 1:
            entered.wait()
        with one_thread():
            if number == 0:
                entered.wait()
            entered.wait()
            inside.append(threads())
            entered.wait()
            if number != first:
                left.wait()
        if number == first:
            left.wait()

    before = threads()
    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(work, number) for number in (0, 1)]:
            done.result()
    assert inside == [{1}, {1}]
    assert threads() == before
