"""Benchmark of accuracy: sub-models beside the whole model and the methods of DeViT and ED-ViT."""
