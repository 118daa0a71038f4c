"""Connections to clusters: dialling, TLS, pooling and HTTP/1.1 on the wire."""
