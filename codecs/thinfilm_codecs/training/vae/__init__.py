"""Training of the vae codec's models, and of what they are compared with. Needs torch and pydicom."""
