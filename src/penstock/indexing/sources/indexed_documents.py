"""Documents of a collection's listing, at a few bytes each."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from typing import Final

import numpy as np
from numpy.typing import NDArray

#: Of an id or a hash. Two ids of a million share one with a chance of 1 : 10⁷; then one of them is sent once too often,
#: or its removal is put off.
DIGEST_BYTES: Final = 8
_NO_HASH: Final = bytes(DIGEST_BYTES)


class IndexedDocuments:
    """The documents of a listing at a few bytes each, so that a million of them fit into a small process.

    Fill it with :meth:`add`, then :meth:`freeze` it, then query it.

    Bounds: 18 bytes for each document, and three times that during :meth:`freeze`.
    """

    def __init__(self) -> None:
        self._rows = bytearray()
        self._ids: NDArray[np.uint64] = np.empty(0, np.uint64)
        self._hashes: NDArray[np.uint64] = self._ids
        self._seen: NDArray[np.bool_] = np.empty(0, np.bool_)
        self._current: NDArray[np.bool_] = self._seen

    def add(self, id_: str, hash_: str) -> None:
        """Add a document. An empty hash marks one that was written incompletely."""
        self._rows += _digest(id_) + (_digest(hash_) if hash_ else _NO_HASH)

    def freeze(self) -> None:
        """Put the documents in order; none can be added afterwards."""
        table = np.frombuffer(bytes(self._rows), np.uint64).reshape(-1, 2)
        self._rows.clear()
        order = np.argsort(table[:, 0], kind="stable")
        self._ids, self._hashes = table[order, 0], table[order, 1]
        self._seen = np.zeros(len(order), np.bool_)
        self._current = np.zeros(len(order), np.bool_)

    def is_unchanged(self, id_: str, hash_file: Callable[[], str]) -> bool:
        """Note that a document's file exists, and return whether it is as the collection has it.

        Args:
            id_: The document's id.
            hash_file: Returns the file's hash; called only for one that is listed and was written whole.
        """
        row = self._row(id_)
        if row is None:
            return False
        self._seen[row] = True
        self._current[row] = bool(self._hashes[row]) and self._hashes[row] == _number(hash_file())
        return bool(self._current[row])

    def assume_unchanged(self, id_: str) -> bool:
        """Note that a document's file exists and was not changed; return whether it is listed and was written whole."""
        row = self._row(id_)
        if row is None:
            return False
        self._seen[row] = True
        self._current[row] = bool(self._hashes[row])
        return bool(self._current[row])

    def note(self, id_: str) -> bool:
        """Note that a document's file exists, and return whether the document is listed."""
        row = self._row(id_)
        if row is not None:
            self._seen[row] = True
        return row is not None

    def holds(self, id_: str, hash_: str = "") -> bool:
        """Return whether the document was listed, with that hash where one is given."""
        row = self._row(id_)
        return row is not None and (not hash_ or bool(self._hashes[row] == _number(hash_)))

    def forget_file(self, id_: str) -> None:
        """Note that a document's file has no text to index any more."""
        row = self._row(id_)
        if row is not None:
            self._seen[row] = False

    def was_unchanged(self, id_: str) -> bool:
        """Return whether the document was found unchanged."""
        row = self._row(id_)
        return row is not None and bool(self._current[row])

    def has_vanished(self, id_: str) -> bool:
        """Return whether the document was listed and its file has not been seen."""
        row = self._row(id_)
        return row is not None and not self._seen[row]

    @property
    def unseen(self) -> int:
        """Documents whose file has not been seen."""
        return len(self._seen) - int(self._seen.sum())

    def _row(self, id_: str) -> int | None:
        wanted = _number(id_)
        row = int(np.searchsorted(self._ids, wanted))
        return row if row < len(self._ids) and self._ids[row] == wanted else None


def _digest(text: str) -> bytes:
    return blake2b(text.encode(errors="surrogatepass"), digest_size=DIGEST_BYTES).digest()


def _number(text: str) -> np.uint64:
    number: np.uint64 = np.frombuffer(_digest(text), np.uint64)[0]
    return number
