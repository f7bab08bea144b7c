"""The bare embedder as a worker: the model on all cores, the longest texts first, nothing around it.

Orders: ``read`` (``tree``, ``models``), ``run``.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from bench.tree import dense_texts
from bench.worker import Order, work
from penstock.kernel.cores import available_cores
from penstock.models.builtin_dense import BuiltinDenseEncoder
from penstock.models.model_source import find_source
from penstock.models.prepare import prepare_model
from penstock.models.tokenizer import TextTokenizer

#: Texts in one call: the order by length leaves little padding whatever the number.
SLICE_TEXTS: Final = 16


class Bare:
    """Reads a tree once, embeds its chunks as often as asked."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._dense: BuiltinDenseEncoder | None = None

    def __call__(self, order: Order) -> dict[str, Any]:
        """Carry out one order."""
        return self._read(order) if order["do"] == "read" else self._run()

    def _read(self, order: Order) -> dict[str, Any]:
        prepared = prepare_model(find_source(), Path(order["models"]))
        tokenizer = TextTokenizer(prepared.tokenizer_path, prepared.tokens_max)
        self._texts = sorted(dense_texts(Path(order["tree"]), tokenizer), key=len, reverse=True)
        self._dense = BuiltinDenseEncoder(prepared)
        return {"chunks": len(self._texts), "distinct": len(set(self._texts))}

    def _run(self) -> dict[str, Any]:
        assert self._dense is not None
        slices = [self._texts[first : first + SLICE_TEXTS] for first in range(0, len(self._texts), SLICE_TEXTS)]
        began_s = time.perf_counter()
        with ThreadPoolExecutor(available_cores()) as threads:
            for _ in threads.map(self._dense.run, slices):
                pass
        return {"took_s": time.perf_counter() - began_s}


if __name__ == "__main__":
    work(Bare())
