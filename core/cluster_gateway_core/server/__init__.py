"""The gRPC services of a core."""
