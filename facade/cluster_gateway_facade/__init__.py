"""The HTTP face of the gateway: an aggregated Kubernetes API server that turns every request into gRPC."""
