"""What a kind of model needs: a directory or a commit of a repository, an address, a name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from penstock.cli.schema import known
from penstock.cli.values import Value

#: By section and kind: what must be set. Of several sets one is enough; the first is named.
NEEDS: Final[Mapping[tuple[str, str], tuple[tuple[str, ...], ...]]] = {
    ("models.dense", "onnx"): (("path",), ("model", "revision")),
    ("models.dense", "openai"): (("url", "model"),),
    ("models.dense", "tei"): (("url", "model"),),
    ("models.sparse", "onnx"): (("path",), ("model", "revision")),
    ("models.sparse", "tei"): (("url", "model"),),
    ("models.rerank", "onnx"): (("path",), ("model", "revision")),
    ("models.rerank", "tei"): (("url",),),
    ("models.rerank", "cohere"): (("url", "model"),),
}


def missing(values: Mapping[str, Value], origins: Mapping[str, str]) -> Iterator[str]:
    """Yield a fault for each chosen kind of model that lacks what it needs.

    Args:
        values: What is set, by YAML name.
        origins: Where it was set.
    """
    variables = {one.yaml: one.spec.env for one in known()}
    for (section, kind), needs in NEEDS.items():
        chosen = f"{section}.kind"
        if values.get(chosen) != kind or any(all(values.get(f"{section}.{name}") for name in need) for need in needs):
            continue
        wanted = " or ".join(" and ".join(f"{section}.{name}" for name in need) for need in needs)
        names = ", ".join(variables[f"{section}.{name}"] for need in needs for name in need)
        origin = origins[chosen]
        where = origin if origin.startswith("environment") else f"{origin}: {chosen}"
        yield f"{where}: {kind} needs {wanted} ({names})"
