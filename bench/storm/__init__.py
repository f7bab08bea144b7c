"""Storm: the real server on one core, asked 0.5 to 20 times what it can do, by a foreign generator on another core.

In come loads in multiples of C; out go figures, curves and one JSON object. ``conduct`` runs it all, ``generator`` is
vegeta, ``systems`` are the servers, ``accounting`` counts what became of the requests.
"""
