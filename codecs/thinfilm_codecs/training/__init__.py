"""Training of the models that the codecs ship with."""
