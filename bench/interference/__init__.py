"""Interference: how long a search takes beside nothing, beside indexing, beside optimising.

In comes a filled server; out go latencies by phase. ``conduct`` goes through the phases, ``searches`` asks while
something else goes on, ``results`` holds the numbers and draws them.
"""
