"""Prometheus' text format 0.0.4, written quickly: a scrape is answered on the event loop."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from prometheus_client.core import Metric

_IN_LABELS: Final = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})
_IN_HELP: Final = str.maketrans({"\\": r"\\", "\n": r"\n"})

#: Sets of labels that are remembered as text, as most of them are the same at every scrape; several times the usual.
LABELS_MAX: Final = 10_000


def text(families: Iterable[Metric]) -> bytes:
    """Return the metrics as text.

    Samples named ``…_created`` are left out: they say when a series began, double what is sent, and Prometheus
    makes no use of them in this format.
    """
    lines: list[str] = []
    for family in families:
        name, created = family.name, f"{family.name}_created"
        if family.type == "counter":
            name += "_total"
        lines.append(f"# HELP {name} {family.documentation.translate(_IN_HELP)}\n# TYPE {name} {family.type}\n")
        for sample in family.samples:
            if sample.name == created:
                continue
            labels = _labels(tuple(sample.labels.items()))
            lines.append(f"{sample.name}{labels} {_number(sample.value)}\n")
    return "".join(lines).encode()


@lru_cache(LABELS_MAX)
def _labels(pairs: tuple[tuple[str, str], ...]) -> str:
    shown = ",".join(f'{key}="{value.translate(_IN_LABELS)}"' for key, value in sorted(pairs))
    return f"{{{shown}}}" if shown else ""


def _number(value: float) -> str:
    # The counts in buckets, most of all numbers, are integers.
    if type(value) is int:
        return str(value)
    if math.isfinite(value):
        return repr(float(value))
    return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"
