"""The live set of registered clusters; no I/O."""
