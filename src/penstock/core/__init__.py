"""The core: everything between the gate and the dependencies, built on Protocols alone.

Enters: the parts it stands on (models, store, caches, clock). Leaves: an ASGI application, its state, its metrics.
May refuse: whatever the rooms below refuse.
Read next: :mod:`penstock.core.core`, then :mod:`penstock.core.flow` and :mod:`penstock.core.parts`.
"""
