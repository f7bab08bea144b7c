"""ONNX Runtime session of a text model's exported graph, and the token rows that it reads.

A session has inputs by name, one output and cancellable runs. Rows are of texts, or of pairs of a query and a text.
Unlike the graph that Penstock prepares for its own model (:mod:`penstock.models.builtin_dense`), such a graph comes as
its exporter left it: with ``int64`` or ``int32`` inputs, with or without ``token_type_ids``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from tokenizers import Tokenizer

from penstock.kernel.errors import Broken, Invalid
from penstock.models.cancellation import CancellationToken, RunCancelled
from penstock.models.contract import Floats
from penstock.models.tokenizer import CHARACTERS_PER_TOKEN_MAX, TextTokenizer, well_formed

INPUT_IDS: Final = "input_ids"
ATTENTION_MASK: Final = "attention_mask"
TOKEN_TYPE_IDS: Final = "token_type_ids"  # noqa: S105 - a name

_INTEGERS: Final = {"tensor(int64)": np.int64, "tensor(int32)": np.int32}


@dataclass(frozen=True, slots=True)
class TokenBatch:
    """A batch of token rows, padded: ids, mask and token types, each ``[n, longest]`` of integers."""

    ids: NDArray[np.int32]
    mask: NDArray[np.int32]
    type_ids: NDArray[np.int32]


class TextSession:
    """A loaded graph; several threads may run it at once.

    Args:
        path: The graph.
        outputs: Names of outputs to look for; the first of them that the graph has is used, else its first output.
        threads: Native threads a call.

    Bounds: ``threads`` native threads for each caller; with 1 the caller's own and no other.

    Attributes:
        output: Name of the output that is used.

    Raises:
        Invalid: The graph wants inputs that no text gives (``model_inputs``).
        Broken: ONNX Runtime refuses it.
    """

    def __init__(self, path: Path, outputs: Sequence[str] = (), threads: int = 1) -> None:
        self._path = path
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), _options(threads), providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # the runtime's exceptions share no narrower base
            raise Broken(f"ONNX Runtime cannot load {path}: {error}", code="model_load") from error
        self._inputs = {one.name: _INTEGERS.get(one.type) for one in self._session.get_inputs()}
        strange = [
            name
            for name, kind in self._inputs.items()
            if name not in {INPUT_IDS, ATTENTION_MASK, TOKEN_TYPE_IDS} or kind is None
        ]
        if strange or INPUT_IDS not in self._inputs:
            known = f"{INPUT_IDS}, {ATTENTION_MASK} and {TOKEN_TYPE_IDS}"
            detail = f"{path}: takes {', '.join(self._inputs)}; only {known} of integers are known"
            raise Invalid(detail, field=str(path), code="model_inputs")
        named = [one.name for one in self._session.get_outputs()]
        self.output = next((name for name in outputs if name in named), named[0])

    def __repr__(self) -> str:
        return f"<TextSession {self._path.name} {self.output}>"

    @contextmanager
    def cancellable(self, stop: CancellationToken | None) -> Iterator[Callable[[TokenBatch], Floats]]:
        """Yield a function that runs the graph once and returns the output; ``stop`` ends all of a job's runs early.

        The function raises ``RunCancelled`` if ``stop`` was cancelled, and ``Broken`` if ONNX Runtime fails.
        """
        stop, options = stop or CancellationToken(), onnxruntime.RunOptions()
        stop.raise_if_cancelled()
        with stop.on_cancel(partial(setattr, options, "terminate", True)):
            yield partial(self._run, options, stop)

    def shrink(self, tokens: TokenBatch) -> None:
        """Free the memory that the runtime keeps between calls, by a run on ``tokens`` that shrinks its arena."""
        self._run(arena_shrink_options(), CancellationToken(), tokens)

    def _run(self, options: onnxruntime.RunOptions, stop: CancellationToken, tokens: TokenBatch) -> Floats:
        stop.raise_if_cancelled()
        given: dict[str, NDArray[Any]] = {
            INPUT_IDS: tokens.ids,
            ATTENTION_MASK: tokens.mask,
            TOKEN_TYPE_IDS: tokens.type_ids,
        }
        feed = {name: given[name].astype(kind, copy=False) for name, kind in self._inputs.items()}
        try:
            output = self._session.run([self.output], feed, options)[0]
        except Exception as error:  # as above
            if stop.is_cancelled:
                raise RunCancelled from None
            raise Broken(f"ONNX Runtime failed over {self._path}: {error}", code="model_run") from error
        array: Floats = np.asarray(output, np.float32)
        return array


def arena_shrink_options() -> onnxruntime.RunOptions:
    """Return options of a run after which the runtime's memory arena frees its unused memory."""
    options = onnxruntime.RunOptions()
    options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    return options


def _options(threads: int) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    # Shapes differ from call to call: a remembered memory plan per shape would only grow.
    options.enable_mem_pattern = False
    options.log_severity_level = 3
    return options


#: The share of a pair's tokens that a query must leave for the text.
TEXT_SHARE_MIN: Final = 0.25


@dataclass(frozen=True, slots=True)
class TokenRow:
    """Token ids of a text or pair, with each token's segment number (token type)."""

    ids: Sequence[int]
    type_ids: Sequence[int]

    def __len__(self) -> int:
        return len(self.ids)


class TextRowTokenizer:
    """Rows of single texts, cut at the model's length.

    Args:
        path: ``tokenizer.json``.
        tokens_max: Tokens after which a text is cut, special tokens included.

    Raises:
        Invalid: The file cannot be read as a tokenizer.
    """

    def __init__(self, path: Path, tokens_max: int) -> None:
        self.tokenizer = TextTokenizer(path, tokens_max)

    def tokenize(self, texts: Sequence[str]) -> list[TokenRow]:
        """Return a row for each text."""
        return [TokenRow(ids, [0] * len(ids)) for ids in self.tokenizer.token_ids(texts)]

    def pad(self, rows: Sequence[TokenRow]) -> TokenBatch:
        """Return the rows as one batch, padded on the right."""
        return pad_rows(rows, self.tokenizer.pad_id)


class PairRowTokenizer:
    """Rows of a query with each of several texts. The text is cut at the model's length, the query never.

    Args:
        path: ``tokenizer.json``; its template says what stands around and between the two.
        tokens_max: Tokens after which a pair is cut, special tokens included.

    Raises:
        Invalid: The file cannot be read as a tokenizer.
    """

    def __init__(self, path: Path, tokens_max: int) -> None:
        self.tokens_max = tokens_max
        self._texts = TextTokenizer(path, tokens_max)
        self._tokenizer = Tokenizer.from_file(str(path))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(tokens_max, strategy="only_second")
        self._special = self._tokenizer.num_special_tokens_to_add(is_pair=True)

    def tokenize(self, query: str, texts: Sequence[str]) -> list[TokenRow]:
        """Return a row for each text.

        Raises:
            Invalid: The query leaves too little for a text (``query_too_long``). Scores for its beginning alone would
                be scores for another query.
        """
        asked = well_formed(query)
        self._room(asked)
        longest = self.tokens_max * CHARACTERS_PER_TOKEN_MAX
        encoded = self._tokenizer.encode_batch([(asked, well_formed(text[:longest])) for text in texts])
        return [TokenRow(one.ids, one.type_ids) for one in encoded]

    def truncated(self, query: str, texts: Sequence[str]) -> list[bool]:
        """Return for each text whether its end is not read beside the query.

        Raises:
            Invalid: As :meth:`tokenize`.
        """
        room = self._room(well_formed(query))
        return [self._texts.truncated(text, self._texts.text_tokens_max - room) for text in texts]

    def _room(self, query: str) -> int:
        """Return how many tokens of a text fit beside a query."""
        # One over the limit need not be counted to its end.
        longest = self.tokens_max * CHARACTERS_PER_TOKEN_MAX
        room = self.tokens_max - self._special - self._texts.count([query[:longest]])[0]
        if room < TEXT_SHARE_MIN * self.tokens_max:
            detail = f"the query is longer than the reranker can read beside a text ({self.tokens_max} tokens in all)"
            raise Invalid(detail, field="query", code="query_too_long")
        return room

    def pad(self, rows: Sequence[TokenRow]) -> TokenBatch:
        """Return the rows as one batch, padded on the right."""
        return pad_rows(rows, self._texts.pad_id)


def pad_rows(rows: Sequence[TokenRow], pad_id: int) -> TokenBatch:
    """Return rows as one batch, padded on the right."""
    shape = len(rows), max(map(len, rows), default=0)
    ids, mask, types = np.full(shape, pad_id, np.int32), np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = row.ids
        mask[number, : len(row)] = 1
        types[number, : len(row)] = row.type_ids
    return TokenBatch(ids, mask, types)
