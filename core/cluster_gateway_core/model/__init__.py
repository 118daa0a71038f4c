"""Frozen values that the rest of the core speaks in; no I/O and no framework."""
