"""What the core and other instances have to know of the models."""

from __future__ import annotations

from penstock.core.parts import Encoders
from penstock.indexing.composition import dense_text, sparse_query, sparse_text
from penstock.kernel.messages import Topic
from penstock.models.choice import Models


def encoders(models: Models) -> Encoders:
    """Return what the core has to know of the models.

    Identifiers are split for BM25 alone: a learned model has its own notion of what a word means.
    """
    dense, sparse, _ = models.used
    learned = models.learned
    return Encoders(
        model=dense.name,
        dim=models.dim,
        late=models.late,
        sparse=sparse.name,
        reads_whole=lambda text: not models.tokenizer.truncated(text),
        sparse_query=(lambda text: text) if learned else sparse_query,
        sparse_text=dense_text if learned else sparse_text,
        learned=sparse.name if learned else "",
        crossed=models.crossed,
        used=tuple(models.used),
    )


def marks(models: Models) -> dict[str, str]:
    """Return what instances must have in common to do each other's work: vectors of one are compared with another's."""
    dense, sparse, rerank = (one.name for one in models.used)
    return {Topic.ML_EMBED: dense, Topic.ML_SPARSE: sparse, Topic.ML_RERANK: f"{dense} {rerank}"}
