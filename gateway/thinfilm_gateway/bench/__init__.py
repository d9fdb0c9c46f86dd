"""Size, speed and memory, measured: of codecs on files, and over the network of Thinfilm and any other node."""
