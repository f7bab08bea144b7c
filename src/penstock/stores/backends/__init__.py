"""Backends: ``edge`` (Qdrant embedded in its own process), ``qdrant`` (a server), ``redis`` (shared caches, rates)."""
