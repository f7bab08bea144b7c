"""Penstock: a self-hosted hybrid search server that stays fast and honest under any load.

Start with ``ARCHITECTURE.md``; the composition root is :mod:`penstock.app`.
"""

__version__ = "0.1.0"
