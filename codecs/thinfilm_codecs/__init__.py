"""Pixels in, bytes out: the image codecs of Thinfilm, apart from any network, database or queue."""
