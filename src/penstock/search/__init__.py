"""From a query to ranked hits: both arms at once, fused, rescored.

Enters: ``SearchRequest``. Leaves: ``SearchResult``, which names what was left out.
May refuse: an invalid request (``Invalid``), a search while both arms are down (``Unavailable``).
Read next: :mod:`penstock.search.pipeline`, then :mod:`penstock.ranking.program`.
"""
