"""Ranking of two arms' results: fusion, exact scores, late interaction, identifiers and paths. Pure.

Enters: a ``RetrievalQuery``, and the answers to the steps of its program. Leaves: a ``RetrievalOutcome``.
May refuse: nothing. A part that fails is named in the outcome, and the rest goes on without it.
Read next: :mod:`penstock.ranking.program`, then :mod:`penstock.ranking.fusion` and :mod:`penstock.ranking.signals`.
"""
