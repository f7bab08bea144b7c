"""A bus in one process, ``memory``, and brokers that carry one between processes: ``redis``, ``kafka``."""
