"""The event bus: bounded topics, the one kind of place where work waits.

Enters: messages with their ``Context`` label. Leaves: calls of subscribed handlers, and replies.
May refuse: a full topic, a client beyond its share, a hopeless deadline (``Rejected``); a passed one (``Expired``).
Read next: :mod:`penstock.bus.contract`, :mod:`penstock.bus.discipline`, :mod:`penstock.bus.topic`,
:mod:`penstock.bus.intake`, ``backends/memory.py``; between processes :mod:`penstock.bus.distributed`.
"""
