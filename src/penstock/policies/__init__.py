"""Policies: breaker, token bucket, adaptive limit, ladder, discard rule, as pure state machines.

Enters: a state, an event and the time. Leaves: the next state and what to do.
May refuse: nothing; policies decide, others act.
Read next: ``docs/decisions/`` for what stands here and what does not yet.
"""
