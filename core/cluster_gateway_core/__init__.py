"""The routing core: cluster registry, authorization, credentials and the streaming of requests to clusters."""
