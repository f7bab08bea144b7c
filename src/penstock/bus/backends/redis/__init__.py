"""The bus's broker on Redis Streams.

Enters: records for channels and mailboxes. Leaves: deliveries, control messages, dead letters.
May refuse: a full channel (``Rejected``), wrong credentials (``Invalid``), all while Redis is away (``Unavailable``).
Read next: :mod:`penstock.bus.backends.redis.broker`, ``reader.py``, ``multiplexer.py``, ``scripts.py``.
"""
