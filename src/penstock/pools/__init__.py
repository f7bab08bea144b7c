"""Worker pools: permits that only running work holds, what the work runs on, and guards before what it asks.

Enters: messages handed over by the bus. Leaves: results of threads, processes and remote dependencies.
May refuse: calls to a dependency whose breaker is open (``CircuitOpen``) or that is busy (``dependency_busy``); a
call that kills its worker process twice is ``Broken``.
Read next: :mod:`penstock.pools.permits`, :mod:`penstock.pools.threads`, :mod:`penstock.pools.ml`,
:mod:`penstock.pools.guard`.
"""
