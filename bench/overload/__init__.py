"""Overload: what a server still does when 2 to 20 times as much is asked of it as it can do.

In come named scenarios of load; out go figures, plots and one JSON object. ``conduct`` runs it all, ``trial`` one
system under one scenario in two processes, ``house`` is Penstock's own parts, ``peers`` what others do.
"""
