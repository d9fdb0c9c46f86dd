"""HTTP: a process of its own that answers, with limits; so far, the health of the gateway."""
