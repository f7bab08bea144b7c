"""Input made to hurt, against a real server: what was promised, and what happened.

Enters: attacks. Leaves: for each, what it got, how long the event loop was held, what memory it took, what others saw.
May refuse: nothing; an attack that breaks something is a figure that is missed.
Read next: :mod:`bench.hostile.conduct`, ``attack.py``, ``watch.py``, ``attacks/``.
"""
