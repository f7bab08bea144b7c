"""The event bus: bounded topics, the one kind of place where work waits.

Enters: messages with their ``Context``. Leaves: calls of subscribed handlers, and replies.
May refuse: a full topic, a client beyond its share, a hopeless deadline (``Rejected``), a passed one (``Expired``).
Read next: :mod:`penstock.bus.contract`, :mod:`penstock.bus.fair_queue`, :mod:`penstock.bus.topic_queue`,
:mod:`penstock.bus.dispatcher`, :mod:`penstock.bus.local`; between processes :mod:`penstock.bus.distributed`; for
operators :mod:`penstock.bus.management`.
"""
