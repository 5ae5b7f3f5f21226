"""What is in storage: byte formats, sealing, packs, layers, manifests, and the reader."""
