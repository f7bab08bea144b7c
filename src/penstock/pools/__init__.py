"""Worker pools: permits for running work, its threads and processes, and guards of its dependencies.

Enters: messages handed over by the bus. Leaves: results of threads, processes and remote dependencies.
May refuse: calls to a dependency whose breaker is open (``CircuitOpen``) or that is busy (``dependency_busy``). A
call that kills its worker process twice is ``Broken``.
Read next: :mod:`penstock.pools.permits`, :mod:`penstock.pools.thread_pool`, :mod:`penstock.pools.model_handlers`,
:mod:`penstock.pools.guard`.
"""
