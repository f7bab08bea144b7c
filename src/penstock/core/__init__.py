"""The core: everything between the API and the dependencies, built on Protocols alone.

Enters: its dependencies (models, store, caches, clock). Leaves: bus, store and pipelines, their state, their metrics.
May refuse: whatever the packages below refuse.
Read next: :mod:`penstock.core.core`, then :mod:`penstock.core.dependencies`.
"""
