"""Thirty agents at once: on one server through its bridges, and on thirty servers of a peer."""
