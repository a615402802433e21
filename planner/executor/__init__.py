"""The executor: carries a plan out and writes the bundle."""
