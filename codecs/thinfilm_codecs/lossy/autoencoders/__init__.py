"""What the codecs of autoencoders share: exact layers, tiles, and the frame of a codec around a network."""
