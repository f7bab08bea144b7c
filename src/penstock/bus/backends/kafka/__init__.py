"""Kafka as the broker between processes; imported only where it is the setting."""
