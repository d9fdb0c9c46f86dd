"""HTTP: the health of the gateway."""
