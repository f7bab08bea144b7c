"""From a query to ranked hits: both arms at once, fused, rescored.

Enters: ``SearchRequest``. Leaves: ``SearchResult``, which says what it could not do.
May refuse: a request that makes no sense (``Invalid``); both arms down (``Unavailable``).
Read next: :mod:`penstock.search.pipeline`, then :mod:`penstock.ranking.course`.
"""
