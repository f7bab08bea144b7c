"""From what two arms found to one order: fusion, exact scores, late interaction, names and places. Pure.

Enters: a ``Retrieval``, and the answers to the steps that its course asks for. Leaves: an ``Outcome``.
May refuse: nothing; what fails is named in the outcome, and the rest goes on without it.
Read next: :mod:`penstock.ranking.course`, then :mod:`penstock.ranking.fusion` and :mod:`penstock.ranking.rescoring`.
"""
