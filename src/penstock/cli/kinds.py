"""What a choice needs: a kind of model its directory or address, a store or a bus that is a server where it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from penstock.cli.schema import known
from penstock.cli.values import Value

#: By setting and value: what must be set. Of several sets one is enough; the first is named.
NEEDS: Final[Mapping[tuple[str, str], tuple[tuple[str, ...], ...]]] = {
    ("models.dense.kind", "onnx"): (("models.dense.path",), ("models.dense.model", "models.dense.revision")),
    ("models.dense.kind", "openai"): (("models.dense.url", "models.dense.model"),),
    ("models.dense.kind", "tei"): (("models.dense.url", "models.dense.model"),),
    ("models.sparse.kind", "onnx"): (("models.sparse.path",), ("models.sparse.model", "models.sparse.revision")),
    ("models.sparse.kind", "tei"): (("models.sparse.url", "models.sparse.model"),),
    ("models.rerank.kind", "onnx"): (("models.rerank.path",), ("models.rerank.model", "models.rerank.revision")),
    ("models.rerank.kind", "tei"): (("models.rerank.url",),),
    ("models.rerank.kind", "cohere"): (("models.rerank.url", "models.rerank.model"),),
    ("store.backend", "qdrant"): (("concurrency.qdrant.url",),),
}


def missing(values: Mapping[str, Value], origins: Mapping[str, str]) -> Iterator[str]:
    """Yield a fault for each choice that lacks what it needs.

    Args:
        values: What is set, by YAML name.
        origins: Where it was set.
    """
    variables = {one.yaml: one.spec.env for one in known()}
    for (chosen, value), needs in NEEDS.items():
        if values.get(chosen) != value or any(all(values.get(name) for name in need) for need in needs):
            continue
        wanted = " or ".join(" and ".join(need) for need in needs)
        names = ", ".join(variables[name] for need in needs for name in need)
        origin = origins[chosen]
        where = origin if origin.startswith("environment") else f"{origin}: {chosen}"
        yield f"{where}: {value} needs {wanted} ({names})"
