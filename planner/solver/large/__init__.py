"""Method for many classes: bounds by prices, covering by class sets, construction and local search."""
