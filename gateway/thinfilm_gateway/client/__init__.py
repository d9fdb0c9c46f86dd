"""The other end of the network: pushes files and pulls data sets as raw bytes; what demo, bench and tests use."""
