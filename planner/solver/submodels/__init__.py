"""Cheapest sub-models for class subsets: knapsack problems and their relaxations."""
