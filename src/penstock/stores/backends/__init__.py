"""Stores that pass the contract suite: ``edge`` (embedded Qdrant in its own process)."""
