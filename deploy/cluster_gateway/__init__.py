"""The command `cluster-gateway`: it runs the gateway, starts local control planes and joins clusters."""
