"""Speed over the network, measured by the same client with the same files for Thinfilm and any other node."""
