"""Method for many classes: relaxation, construction and local search."""
