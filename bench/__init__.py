"""Named workloads. ``python -m bench`` lists them; each prints one JSON object last with ``--json``."""
