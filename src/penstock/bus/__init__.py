"""The event bus: bounded topics, the one kind of place where work waits.

Enters: messages with their ``Work`` label. Leaves: calls of subscribed handlers, and replies.
May refuse: a full topic (``Rejected``), a passed deadline (``Expired``).
Read next: :mod:`penstock.bus.contract`, :mod:`penstock.bus.topic`, ``backends/memory.py``.
"""
