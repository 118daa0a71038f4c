"""What the facade answers, one module a kind of request."""
