"""Composition root: the real dependencies, made once, started and stopped in order.

Enters: settings, a data directory, a role. Leaves: a running Penstock, or a part of one.
May refuse: settings that cannot be used, or not for this role; a directory that another holds; a missing model.
Read next: :mod:`penstock.app.app`, then its halves: :mod:`penstock.app.backing_services`, the services outside of this
process, and :mod:`penstock.app.assembly`, the core and models in it.
"""
