"""Buses that pass the contract suite: ``memory``."""
