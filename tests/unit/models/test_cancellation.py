"""A run of a model can be stopped from another thread, and nothing else notices."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from penstock.kernel.errors import Broken
from penstock.kernel.messages import TextKind
from penstock.models.builtin_dense import BuiltinDenseEncoder
from penstock.models.cancellation import CancellationToken, RunCancelled
from penstock.models.device import cpu_device
from penstock.models.factory import LateInteractionReranker
from penstock.models.prepare import prepare_model

if TYPE_CHECKING:
    from penstock.models.model_source import ModelSource

TEXTS = ["bano deki", "la", "", "rise souki banlo to ta ti me"]
#: Rows enough for a run that is never over before another thread has spoken.
LONG = [list(range(4, 20))] * 20_000


@pytest.fixture(scope="module")
def runner(tiny: ModelSource, tmp_path_factory: pytest.TempPathFactory) -> BuiltinDenseEncoder:
    return BuiltinDenseEncoder(prepare_model(tiny, tmp_path_factory.mktemp("prepared")))


@pytest.fixture(scope="module")
def wide(tiny: ModelSource, tmp_path_factory: pytest.TempPathFactory) -> BuiltinDenseEncoder:
    """Runs all texts in one call of the runtime."""
    return BuiltinDenseEncoder(
        prepare_model(tiny, tmp_path_factory.mktemp("prepared")),
        device=replace(cpu_device(), call_tokens_max=1_000_000),
    )


class Watched(CancellationToken):
    """Tells when a run listens."""

    def __init__(self) -> None:
        super().__init__()
        self.listens = threading.Event()

    def on_cancel(self, break_off):
        self.listens.set()
        return super().on_cancel(break_off)


class Counting(CancellationToken):
    """Is asked at the run's n-th check."""

    def __init__(self, checks: int) -> None:
        super().__init__()
        self.left = checks

    def raise_if_cancelled(self) -> None:
        self.left -= 1
        if self.left == 0:
            self.cancel()
        super().raise_if_cancelled()


def test_a_stop_tells_whoever_listens_at_once_or_as_soon_as_it_listens() -> None:
    stop, told = CancellationToken(), []
    stop.raise_if_cancelled()
    assert (stop.is_cancelled, repr(stop)) == (False, "<CancellationToken not asked>")
    with stop.on_cancel(lambda: told.append("first")):
        assert told == []
        stop.cancel()
        assert told == ["first"]
    stop.cancel()
    assert told == ["first"], "nobody listens any more"
    with stop.on_cancel(lambda: told.append("second")):
        assert told == ["first", "second"]
    assert (stop.is_cancelled, repr(stop)) == (True, "<CancellationToken asked>")
    with pytest.raises(RunCancelled):
        stop.raise_if_cancelled()


@pytest.mark.parametrize("which", ["runner", "wide"])
def test_a_run_that_is_stopped_ends_early_and_the_session_is_as_before(
    which: str, request: pytest.FixtureRequest
) -> None:
    model: BuiltinDenseEncoder = request.getfixturevalue(which)
    before, stop = model.run(TEXTS), Watched()
    with ThreadPoolExecutor(1) as threads:
        job = threads.submit(model.run_token_ids, LONG, stop)
        assert stop.listens.wait(60)
        stop.cancel()
        with pytest.raises(RunCancelled) as caught:
            job.result(60)
    assert caught.value.__cause__ is None, "nobody sees the runtime's own error"
    np.testing.assert_array_equal(model.run(TEXTS), before)


def test_a_run_is_stopped_between_its_calls(runner: BuiltinDenseEncoder) -> None:
    stop = Counting(5)
    with pytest.raises(RunCancelled):
        runner.run_token_ids(LONG, stop)
    assert stop.left == 0


def test_a_run_stopped_before_it_begins_does_not_begin(runner: BuiltinDenseEncoder) -> None:
    stop = CancellationToken()
    stop.cancel()
    with pytest.raises(RunCancelled):
        runner.run(TEXTS, stop)
    with pytest.raises(RunCancelled):
        runner.run_token_ids([[2, 3]], stop)
    with pytest.raises(RunCancelled):
        runner.run_with_token_vectors(TEXTS, TextKind.QUERY, stop)


def test_stopping_a_run_that_has_ended_changes_nothing(runner: BuiltinDenseEncoder) -> None:
    stop = CancellationToken()
    vectors = runner.run(TEXTS, stop)
    stop.cancel()
    np.testing.assert_array_equal(runner.run(TEXTS), vectors)


def test_of_two_runs_at_once_only_the_one_that_is_stopped_ends(wide: BuiltinDenseEncoder) -> None:
    rows = LONG[:2_000]
    expected, stop = wide.run_token_ids(rows), Watched()
    with ThreadPoolExecutor(2) as threads:
        stopped = threads.submit(wide.run_token_ids, LONG, stop)
        assert stop.listens.wait(60)
        other = threads.submit(wide.run_token_ids, rows, CancellationToken())
        stop.cancel()
        with pytest.raises(RunCancelled):
            stopped.result(60)
        np.testing.assert_array_equal(other.result(60), expected)


def test_an_error_of_the_runtime_is_no_stop(runner: BuiltinDenseEncoder) -> None:
    with pytest.raises(Broken) as caught:
        runner.run_token_ids([[10_000]], CancellationToken())  # no such token
    assert caught.value.code == "model_run"


def test_a_rerank_is_stopped_with_the_model_under_it(runner: BuiltinDenseEncoder) -> None:
    stop = CancellationToken()
    stop.cancel()
    with pytest.raises(RunCancelled):
        LateInteractionReranker(runner).run("la", TEXTS, stop)
