"""Who is asking: the hub's front proxy for a user, a client certificate, or a bearer token."""
