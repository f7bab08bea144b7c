"""Facts on their way out: metrics and logs.

Enters: counts, durations, states. Leaves: the Prometheus exposition, log lines.
May refuse: nothing; telemetry never stands in the way of work.
Read next: :mod:`penstock.telemetry.metrics`.
"""
