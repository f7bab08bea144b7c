"""The systems by name: Penstock, Penstock without one mechanism or several, and the peers."""

from __future__ import annotations

from typing import Final

from bench.overload.peers import PEERS
from bench.overload.records import Peer, Variant

OURS: Final = "penstock"
FULL_QUALITY: Final = "penstock full quality"

PENSTOCKS: Final = {
    OURS: Variant("everything on"),
    FULL_QUALITY: Variant("the ladder off: no degraded answers", highest="full"),
}

#: One mechanism off in turn, then some together.
WITHOUT: Final = {
    "no classes": Variant("all classes alike", {"classes": False}),
    "no fair clients": Variant("clients in one queue", {"fair_clients": False}),
    "no client share": Variant("one client may fill the buffer", {"client_share": 1.0}),
    "no newest first": Variant("always first in first out", {"newest_first": False}),
    "no discard": Variant("what can no longer end in time is begun", {"discard": False}),
    "no hopeless refusal": Variant("what could not end in time queues", {"refuse_hopeless": False}),
    "neither of both": Variant("neither discard nor refusal", {"discard": False, "refuse_hopeless": False}),
    "no topic pressure": Variant("the gate does not look at the topic", pressure=False),
    "no limit": Variant(
        "a breaker alone before the dependency, which may take all the time", limited=False, patience=1.0
    ),
    "no bulkhead": Variant("calls to the dependency may hold every permit", share=1.0),
    "no hurry": Variant("a call to the dependency may take all the time", patience=1.0),
    "no breaker": Variant("the dependency is always asked, and may take all the time", breaker=False, patience=1.0),
    "ladder to the end": Variant("the ladder climbs to refuse whenever congested", always_pressed=True),
    "bounded fifo": Variant(
        "discipline fifo, no discard, no refusal, no ladder",
        {"discipline": "fifo", "discard": False, "refuse_hopeless": False},
        highest="full",
    ),
}

SYSTEMS: Final[dict[str, Variant | Peer]] = {**PENSTOCKS, **PEERS, **WITHOUT}
MAIN: Final = (*PENSTOCKS, *PEERS)
