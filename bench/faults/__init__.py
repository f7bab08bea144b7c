"""What becomes of work while machines, links and brokers fail: several hosts on one machine.

Enters: layouts and faults. Leaves: what was answered, refused, lost, done twice, and how long it took to recover.
May refuse: without root, iproute2 or the broker (``Missing``).
Read next: :mod:`bench.faults.conduct`, ``hosts.py``, ``plant.py``, ``accidents.py``, ``accounting.py``.
"""
