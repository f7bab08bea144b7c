"""Answers: how long after ``penstock index`` has started, and after a file was saved, its text is found.

In come trees; out go seconds until the first hit, until every word, until every vector. ``conduct`` goes through the
phases, ``probes`` asks the server, ``results`` holds the numbers beside their goals.
"""
