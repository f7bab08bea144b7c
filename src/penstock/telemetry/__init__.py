"""Telemetry: metrics, alerts and logs.

Enters: counts, durations, states. Leaves: the Prometheus exposition, log lines.
May refuse: nothing. Telemetry never stands in the way of work.
Read next: :mod:`penstock.telemetry.metrics`.
"""
