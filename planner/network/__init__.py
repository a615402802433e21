"""The network: the Vision Transformer, its surgery, fusion, losses, training and data."""
