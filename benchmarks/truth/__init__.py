"""Predicted beside measured: plans for models that nobody tuned for, executed and tested."""
