"""Search: how fast the server finds what, beside the bare engine and other stores on the same vectors.

In comes a corpus (:mod:`bench.corpus`); out go searches a second, latencies, and recall@10 against exact search.
``conduct`` runs it all, ``stage`` prepares server, vectors and peers, ``results`` holds the numbers and draws them.
"""
