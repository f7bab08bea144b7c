"""Brokers that carry the bus between processes: ``redis`` and ``kafka``."""
