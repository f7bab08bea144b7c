"""Built-in dense model, run by ONNX Runtime on the processor or a GPU.

Measured on 2 cores (AVX512-VNNI), int8 all-MiniLM-L6-v2; callers x threads a call:

================================= ===== ===== =====
                                 1 x 2 2 x 1 2 x 2
================================= ===== ===== =====
texts of 160 tokens, best docs/s  145   145   116
texts of 40 tokens, best docs/s   662   677   567
one query alone, ms               1.0   1.3   1.0
query while the callers work, p50 1.7   2.1   1.9
query while the callers work, p95 5.9   2.2   6.3
================================= ===== ===== =====

Hence one thread a call and as many callers as cores: the same throughput, no spinning pool, a
steadier query.

A cancelled run ends before the runtime's next operator. Measured with the same model on one
thread: after 0.5 ms (at most 6) in a call of 1 × 64 tokens that takes 15, after 1.5 ms in one of 4 × 128.
The session and other runs on it do not notice.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime

from penstock.kernel.errors import Broken
from penstock.kernel.vectors import Embeddings
from penstock.models.batching import plan_batches
from penstock.models.cancellation import CancellationToken, RunCancelled
from penstock.models.device import Device, available_providers, check_device, cpu_device
from penstock.models.onnx_session import arena_shrink_options
from penstock.models.projection import pool_token_vectors
from penstock.models.tokenizer import TextTokenizer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from penstock.kernel.late_interaction import TokenVectors
    from penstock.kernel.messages import TextKind
    from penstock.models.contract import Floats
    from penstock.models.prepare import PreparedModel

_NO_TOKENS = np.empty((0, 0), np.int8)


class BuiltinDenseEncoder:
    """Runs a prepared sentence encoder; several threads may call it at once.

    Bounds: ``threads`` native threads for each caller (with 1 the caller's own thread and no
    other); calls of ``call_tokens_max`` padded tokens or of one text.
    """

    def __init__(
        self,
        prepared: PreparedModel,
        threads: int = 1,
        call_tokens_max: int | None = None,
        device: Device | None = None,
    ) -> None:
        """Load the graph and run it once, so that the first caller finds it warm.

        Args:
            prepared: The result of ``prepare_model``.
            threads: Native threads a call; callers times threads must not exceed the cores.
            call_tokens_max: Budget of one call of the model; what suits the device if ``None``. With 0 every
                text runs alone: its vector is then the same to the last bit whatever it came with, at two
                thirds of the throughput for texts of 10 tokens.

            device: Where it runs; the processor if ``None``.

        Raises:
            Broken: ONNX Runtime refuses the graph.
            Unavailable: It cannot start the device.
            Invalid: The tokenizer cannot be read.
        """
        self.dim = prepared.dim
        self.token_dim = prepared.token_dim
        self.model = f"{prepared.name}-{prepared.fingerprint}"
        self.tokenizer = TextTokenizer(prepared.tokenizer_path, prepared.tokens_max)
        self.device = device or cpu_device()
        check_device(self.device, available_providers())
        self._call_tokens_max = self.device.call_tokens_max if call_tokens_max is None else call_tokens_max
        try:
            self._session = onnxruntime.InferenceSession(
                str(prepared.path), _options(threads, self.device), providers=list(self.device.providers)
            )
        except Exception as error:  # the runtime's exceptions share no narrower base
            raise Broken(f"ONNX Runtime cannot load {prepared.path}: {error}", code="model_load") from error
        check_device(self.device, self._session.get_providers())
        self.run([""])

    def run(self, texts: Sequence[str], stop: CancellationToken | None = None) -> Floats:
        """Embed texts; an empty text has a vector as well.

        Args:
            texts: The texts.
            stop: Ends the run early.

        Returns:
            ``float32 [n, dim]``, L2-normalised, in the order of ``texts``.

        Raises:
            Broken: ONNX Runtime fails.
            RunCancelled: ``stop`` was cancelled.
        """
        stop = stop or CancellationToken()
        stop.raise_if_cancelled()
        return self.run_token_ids(self.tokenizer.token_ids(texts), stop)

    def run_with_token_vectors(
        self, texts: Sequence[str], kind: TextKind, stop: CancellationToken | None = None
    ) -> Embeddings:
        """Embed texts, and return the token vectors of the same run too.

        Args:
            texts: The texts.
            kind: Queries or documents; see :func:`penstock.models.projection.pool_token_vectors`.
            stop: Ends the run early.

        Raises:
            Broken: ONNX Runtime fails.
            RunCancelled: ``stop`` was cancelled.
        """
        stop = stop or CancellationToken()
        stop.raise_if_cancelled()
        rows = self.tokenizer.token_ids(texts)
        vectors = np.empty((len(rows), self.dim), np.float32)
        late: list[TokenVectors] = [_NO_TOKENS] * len(rows)
        for group, (sentences, tokens) in self._calls(rows, ["sentence", "late"], stop):
            vectors[group] = sentences
            for position, projected in zip(group, tokens, strict=True):
                late[position] = pool_token_vectors(projected[: len(rows[position])], kind)
        return Embeddings(vectors, late)

    def run_token_ids(self, rows: Sequence[Sequence[int]], stop: CancellationToken | None = None) -> Floats:
        """Embed texts already tokenised by ``tokenizer.token_ids``.

        A caller may so slice a job by its tokens (``batching.SLICE_TOKENS_MAX``) at no further
        cost.

        Args:
            rows: The texts' tokens.
            stop: Ends the run early.

        Returns:
            ``float32 [n, dim]``, L2-normalised, in the order of ``rows``.

        Raises:
            Broken: ONNX Runtime fails.
            RunCancelled: ``stop`` was cancelled.
        """
        vectors = np.empty((len(rows), self.dim), np.float32)
        for group, (sentences,) in self._calls(rows, ["sentence"], stop or CancellationToken()):
            vectors[group] = sentences
        return vectors

    def shrink(self) -> None:
        """Free the memory that the runtime keeps between calls, by a run that shrinks its arena."""
        if self.device.name != "cpu":
            return
        ids, mask = self.tokenizer.encode([""])
        self._session.run(["sentence"], {"input_ids": ids, "attention_mask": mask}, arena_shrink_options())

    def _calls(
        self, rows: Sequence[Sequence[int]], outputs: list[str], stop: CancellationToken
    ) -> Iterator[tuple[list[int], list[Floats]]]:
        """Call the model for group after group; yield the group's places in ``rows`` and its outputs."""
        options = onnxruntime.RunOptions()
        with stop.on_cancel(partial(setattr, options, "terminate", True)):
            for group in plan_batches(
                [len(row) for row in rows], self._call_tokens_max, self.device.padding_tokens_max
            ):
                stop.raise_if_cancelled()
                ids, mask = self.tokenizer.pad([rows[position] for position in group])
                try:
                    output = self._session.run(outputs, {"input_ids": ids, "attention_mask": mask}, options)
                except Exception as error:  # as above
                    if stop.is_cancelled:
                        raise RunCancelled from None
                    raise Broken(f"ONNX Runtime failed: {error}", code="model_run") from error
                yield group, output


def _options(threads: int, device: Device) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    # Shapes differ from call to call: a remembered memory plan per shape would only grow.
    options.enable_mem_pattern = False
    if device.name == "cpu":
        # The graph comes with its operators fused; the higher levels would fuse sums and norms too, which is slower.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 3
    return options
