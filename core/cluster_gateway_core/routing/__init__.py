"""Pure decisions about a request: what it asks, whether its target is sound, which headers travel; no I/O."""
