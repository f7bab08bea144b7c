"""Distributed: what a request costs that another process answers, and what more workers bring.

In come brokers; out go rates and latencies, ours beside a bare client's. ``system`` says what is measured, ``ours``,
``bare_redis``, ``bare_kafka`` and ``bare_memory`` are that, ``end`` runs one end of one of them in a process of its
own, ``conduct`` has them take turns, ``results`` holds the numbers and draws them.
"""
