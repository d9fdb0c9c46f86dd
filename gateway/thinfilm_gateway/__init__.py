"""The services that stand on the network, and the archive and index that they share with the workers."""
