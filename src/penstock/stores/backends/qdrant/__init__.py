"""Qdrant as a server of its own, one node or a cluster, by way of its official client.

Enters: the contract's calls (``store``), as JSON (``schema``, ``wire``) over a bounded pool of connections
(``connection``). Leaves: what the contract says, or one of our errors (``errors``).
The layout is the embedded engine's (:mod:`penstock.stores.backends.layout`), so both give the same hits.
"""
