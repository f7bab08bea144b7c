"""The core: everything between the gate and the dependencies, built on Protocols alone.

Enters: its dependencies (models, store, caches, clock). Leaves: an ASGI application, its state, its metrics.
May refuse: whatever the packages below refuse.
Read next: :mod:`penstock.core.core`, then :mod:`penstock.core.dependencies`.
"""
