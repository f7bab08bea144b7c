"""Scale: how time, memory, disk and recall grow with the number of chunks.

In come sizes; out go a table and a plot. ``synthetic`` makes vectors, ``one`` measures one size in a process of its
own, ``conduct`` runs one size after the other and keeps what has been measured, so that a run can be taken up again.
"""
