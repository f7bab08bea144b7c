"""Vector storage: the store's contract and its backends.

Enters: points, filters, one-arm queries. Leaves: scored ids, stored chunks, document heads.
May refuse: an unknown collection (``Invalid``), a store that cannot answer (``Unavailable``).
Read next: :mod:`penstock.stores.contract` and :mod:`penstock.stores.data_model`, then ``backends/edge/``.
"""
