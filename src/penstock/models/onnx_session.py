"""ONNX Runtime session of a text model's graph: inputs by name, calls of some rows at a time, cancellable.

A graph is the one that Penstock prepares for its own model (:mod:`penstock.models.graph`), or one as its exporter left
it: with ``int64`` or ``int32`` inputs, with or without ``token_type_ids``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from penstock.kernel.errors import Broken, Invalid
from penstock.models.batching import plan_batches
from penstock.models.cancellation import CancellationToken, RunCancelled
from penstock.models.contract import Floats
from penstock.models.device import Device, available_providers, check_device, cpu_device
from penstock.models.tokenizer import TextTokenizer, pad_rows

INPUT_IDS: Final = "input_ids"
ATTENTION_MASK: Final = "attention_mask"
TOKEN_TYPE_IDS: Final = "token_type_ids"  # noqa: S105 - a name

_INTEGERS: Final = {"tensor(int64)": np.int64, "tensor(int32)": np.int32}


class TextSession:
    """A loaded graph; several threads may run it at once.

    Bounds: ``threads`` native threads for each caller; with 1 the caller's own and no other.

    Raises:
        Invalid: The graph wants inputs that no text gives (``model_inputs``).
        Broken: ONNX Runtime refuses it.
        Unavailable: It cannot start the device.
    """

    def __init__(
        self,
        path: Path,
        tokenizer: TextTokenizer,
        device: Device | None = None,
        threads: int = 1,
        *,
        fused: bool = False,
    ) -> None:
        self.device = device or cpu_device()
        self._path = path
        self._tokenizer = tokenizer
        check_device(self.device, available_providers())
        options = _options(threads, basic=fused and self.device.name == "cpu")
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=list(self.device.providers))
        except Exception as error:  # the runtime's exceptions share no narrower base
            raise Broken(f"ONNX Runtime cannot load {path}: {error}", code="model_load") from error
        check_device(self.device, self._session.get_providers())
        self._inputs = {one.name: _INTEGERS.get(one.type) for one in self._session.get_inputs()}
        self._outputs = [one.name for one in self._session.get_outputs()]
        known = {INPUT_IDS, ATTENTION_MASK, TOKEN_TYPE_IDS}
        if INPUT_IDS not in self._inputs or not self._inputs.keys() <= known or None in self._inputs.values():
            named = f"{INPUT_IDS}, {ATTENTION_MASK} and {TOKEN_TYPE_IDS}"
            detail = f"{path}: takes {', '.join(self._inputs)}; only {named} of integers are known"
            raise Invalid(detail, field=str(path), code="model_inputs")

    def __repr__(self) -> str:
        return f"<TextSession {self._path.name} {', '.join(self._outputs)}>"

    def first_output(self, names: Sequence[str]) -> str:
        """Return the first of the names that is an output of the graph, else the graph's first output."""
        return next((name for name in names if name in self._outputs), self._outputs[0])

    def calls(
        self,
        rows: Sequence[Sequence[int]],
        outputs: Sequence[str],
        stop: CancellationToken | None,
        types: Sequence[Sequence[int]] = (),
    ) -> Iterator[tuple[list[int], NDArray[np.int32], list[Floats]]]:
        """Call the graph for group after group of rows; yield the group's places in ``rows``, its mask and outputs.

        Args:
            rows: Token ids of the texts, or of pairs of a query and a text.
            outputs: Names of the outputs wanted.
            stop: Ends all of the job's calls early.
            types: Each token's segment number (token type) in its pair; none for texts, where it is 0.

        Raises:
            Broken: ONNX Runtime fails.
            RunCancelled: ``stop`` was cancelled.
        """
        stop, options = stop or CancellationToken(), onnxruntime.RunOptions()
        stop.raise_if_cancelled()
        lengths, device = [len(row) for row in rows], self.device
        with stop.on_cancel(partial(setattr, options, "terminate", True)):
            for group in plan_batches(lengths, device.call_tokens_max, device.padding_tokens_max):
                ids, mask = self._tokenizer.pad([rows[place] for place in group])
                type_ids = pad_rows([types[place] for place in group], 0) if types else np.zeros_like(ids)
                given = {INPUT_IDS: ids, ATTENTION_MASK: mask, TOKEN_TYPE_IDS: type_ids}
                yield group, mask, self._run(given, outputs, options, stop)

    def shrink(self) -> None:
        """Free the memory that the runtime keeps between calls, by a run that shrinks its arena."""
        if self.device.name == "cpu":
            options = onnxruntime.RunOptions()
            options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
            ids, mask = self._tokenizer.encode(["a"])
            given = {INPUT_IDS: ids, ATTENTION_MASK: mask, TOKEN_TYPE_IDS: np.zeros_like(ids)}
            self._run(given, self._outputs[:1], options, CancellationToken())

    def _run(
        self,
        given: dict[str, NDArray[np.int32]],
        outputs: Sequence[str],
        options: onnxruntime.RunOptions,
        stop: CancellationToken,
    ) -> list[Floats]:
        stop.raise_if_cancelled()
        feed: dict[str, Any] = {name: given[name].astype(kind, copy=False) for name, kind in self._inputs.items()}
        try:
            found = self._session.run(outputs, feed, options)
        except Exception as error:  # as above
            if stop.is_cancelled:
                raise RunCancelled from None
            raise Broken(f"ONNX Runtime failed over {self._path}: {error}", code="model_run") from error
        return [np.asarray(one, np.float32) for one in found]


def _options(threads: int, *, basic: bool) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    # Shapes differ from call to call: a remembered memory plan per shape would only grow.
    options.enable_mem_pattern = False
    if basic:
        # Where operators are fused already, the higher levels would fuse sums and norms too, which is slower.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 3
    return options
