"""A ViT split by class beside convolutional networks of the same latency: whole, split by class, and spiking."""
