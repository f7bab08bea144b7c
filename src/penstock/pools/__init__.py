"""Worker pools: permits that only running work holds, and what the work runs on.

Enters: messages handed over by the bus. Leaves: results of threads and processes.
May refuse: nothing itself; a crashed worker process is reported (``Broken``).
Read next: :mod:`penstock.pools.permits`, :mod:`penstock.pools.threads`, :mod:`penstock.pools.ml`.
"""
