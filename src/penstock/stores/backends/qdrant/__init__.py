"""Qdrant as a separate server, one node or a cluster, through its official client.

Enters: the contract's calls (``store``), as JSON (``collection_schema``, ``conversions``) over a bounded pool of
connections (``client``). Leaves: the contract's results, or one of our errors (``error_mapping``).
The layout is the embedded engine's (:mod:`penstock.stores.backends.layout`), so both give the same hits.
"""
