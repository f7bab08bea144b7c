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

from typing import TYPE_CHECKING

import numpy as np

from penstock.kernel.vectors import Embeddings
from penstock.models.device import Device, cpu_device
from penstock.models.onnx_session import TextSession
from penstock.models.projection import pool_token_vectors
from penstock.models.tokenizer import TextTokenizer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from penstock.kernel.late_interaction import TokenVectors
    from penstock.kernel.messages import TextKind
    from penstock.models.cancellation import CancellationToken
    from penstock.models.contract import Floats
    from penstock.models.prepare import PreparedModel

_NO_TOKENS = np.empty((0, 0), np.int8)


class BuiltinDenseEncoder:
    """Runs a prepared sentence encoder; several threads may call it at once.

    Bounds: ``threads`` native threads for each caller (with 1 the caller's own thread and no
    other); calls of one text, or of ``device.call_tokens_max`` padded tokens.
    """

    def __init__(self, prepared: PreparedModel, threads: int = 1, device: Device | None = None) -> None:
        """Load the graph and run it once, so that the first caller finds it warm.

        Args:
            prepared: The result of ``prepare_model``.
            threads: Native threads a call; callers times threads must not exceed the cores.
            device: Where it runs; the processor if ``None``. There every text runs alone, so that its vector is the
                same to the last bit whatever it came with.

        Raises:
            Broken: ONNX Runtime refuses the graph.
            Unavailable: It cannot start the device.
            Invalid: The tokenizer cannot be read.
        """
        self.dim = prepared.dim
        self.token_dim = prepared.token_dim
        self.model = prepared.model
        self.tokenizer = TextTokenizer(prepared.tokenizer_path, prepared.tokens_max)
        self.device = device or cpu_device()
        self._session = TextSession(prepared.path, self.tokenizer, self.device, threads, fused=True)
        self.run([""])

    def run(self, texts: Sequence[str], stop: CancellationToken | None = None) -> Floats:
        """Embed texts; an empty text has a vector as well.

        Returns:
            ``float32 [n, dim]``, L2-normalised, in the order of ``texts``.

        Raises:
            Broken: ONNX Runtime fails.
            RunCancelled: ``stop`` was cancelled.
        """
        return self.run_token_ids(self.tokenizer.token_ids(texts), stop)

    def run_with_token_vectors(
        self, texts: Sequence[str], kind: TextKind, stop: CancellationToken | None = None
    ) -> Embeddings:
        """Embed texts as :meth:`run`, and return the token vectors of the same run too.

        They are pooled as suits the texts' kind (:func:`penstock.models.projection.pool_token_vectors`).
        """
        rows = self.tokenizer.token_ids(texts)
        vectors = np.empty((len(rows), self.dim), np.float32)
        late: list[TokenVectors] = [_NO_TOKENS] * len(rows)
        for group, _, (sentences, tokens) in self._session.calls(rows, ["sentence", "late"], stop):
            vectors[group] = sentences
            for position, projected in zip(group, tokens, strict=True):
                late[position] = pool_token_vectors(projected[: len(rows[position])], kind)
        return Embeddings(vectors, late)

    def run_token_ids(self, rows: Sequence[Sequence[int]], stop: CancellationToken | None = None) -> Floats:
        """Embed texts already tokenised by ``tokenizer.token_ids``; otherwise as :meth:`run`."""
        vectors = np.empty((len(rows), self.dim), np.float32)
        for group, _, (sentences,) in self._session.calls(rows, ["sentence"], stop):
            vectors[group] = sentences
        return vectors

    def shrink(self) -> None:
        """Free the memory that the runtime keeps between calls."""
        self._session.shrink()
