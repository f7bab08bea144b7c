"""Kafka as the broker between processes; imported only where ``BUS_BACKEND`` is ``kafka``."""
