"""`thinfilm demo`: proof on real files, for whoever sees the gateway for the first time."""
