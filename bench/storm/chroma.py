"""Fill a directory for Chroma's server: ``python -m bench.storm.chroma VECTORS.npz DIR`` prints the collection's id."""

from __future__ import annotations

import sys
from typing import Final

import chromadb
import numpy as np
from chromadb.config import Settings

NAME: Final = "bench"
ADD_ROWS: Final = 1_000


def main() -> None:
    """Write every row."""
    with np.load(sys.argv[1]) as stored:
        vectors, texts = stored["vectors"], stored["texts"].tolist()
    client = chromadb.PersistentClient(sys.argv[2], Settings(anonymized_telemetry=False))
    rows = client.create_collection(NAME, metadata={"hnsw:space": "ip"}, embedding_function=None)
    for first in range(0, len(texts), ADD_ROWS):
        last = min(first + ADD_ROWS, len(texts))
        ids = [str(row) for row in range(first, last)]
        rows.add(ids=ids, embeddings=vectors[first:last], documents=texts[first:last])
    print(rows.id)


if __name__ == "__main__":
    main()
