"""The runtime: runs sub-models on devices."""
