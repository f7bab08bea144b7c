"""Policies: breaker, rate limit, congestion, discard, ladder, levels, adaptive limit, retries, as pure state machines.

Enters: an event and the time, as seconds on the loop's clock. Leaves: a decision, and what changed by it.
May refuse: settings that make no sense. Of requests, policies only decide; others act.
Read next: :mod:`penstock.policies.breaker` for the form they all have, :mod:`penstock.policies.discard` for the heart.
"""
