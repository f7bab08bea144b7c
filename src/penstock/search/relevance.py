"""Relevance metrics of a ranking against judgements: nDCG and recall.

Both follow trec_eval, which BEIR uses too (Thakur et al. 2021, "BEIR: A Heterogeneous Benchmark for Zero-shot
Evaluation of Information Retrieval Models").
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence


def ndcg(ranking: Sequence[str], gains: Mapping[str, float], k: int) -> float:
    """Return the normalised discounted cumulative gain of the first ``k`` results.

    ``DCG@k = sum over ranks i = 1..k of gain_i / log2(i + 1)``, divided by the DCG of the best possible ranking
    (Järvelin and Kekäläinen 2002, "Cumulated gain-based evaluation of IR techniques", with the gain itself rather
    than ``2^gain - 1``, as trec_eval's ``ndcg_cut`` does).

    Args:
        ranking: Document ids, the best first; only the first appearance of an id counts.
        gains: Judged documents; ids that are absent and gains that are not positive count 0.
        k: How many results are looked at, at least 1.

    Returns:
        Between 0 and 1; 0 where nothing is relevant.
    """
    found = _distinct(ranking, k)
    ideal = sorted((gain for gain in gains.values() if gain > 0), reverse=True)
    best = _dcg(ideal[:k])
    if best <= 0:
        return 0.0
    return _dcg(max(0.0, gains.get(document, 0.0)) for document in found) / best


def recall(ranking: Sequence[str], gains: Mapping[str, float], k: int) -> float:
    """Return the share of the relevant documents that is among the first ``k`` results.

    ``|relevant among the first k| / |relevant|`` (Manning, Raghavan and Schütze 2008, "Introduction to Information
    Retrieval", §8.3; trec_eval's ``recall``). A document with a positive gain is relevant.

    Args:
        ranking: Document ids, the best first; only the first appearance of an id counts.
        gains: Judged documents.
        k: How many results are looked at, at least 1.

    Returns:
        Between 0 and 1; 0 where nothing is relevant.
    """
    found = _distinct(ranking, k)
    relevant = {document for document, gain in gains.items() if gain > 0}
    if not relevant:
        return 0.0
    return len(relevant.intersection(found)) / len(relevant)


def _dcg(gains: Iterable[float]) -> float:
    return sum(gain / math.log2(rank + 1) for rank, gain in enumerate(gains, start=1))


def _distinct(ranking: Sequence[str], k: int) -> list[str]:
    if k < 1:
        raise ValueError("k must be at least 1")
    return list(dict.fromkeys(ranking))[:k]
