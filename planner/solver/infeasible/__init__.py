"""Explanations of infeasible goals, and their smallest repairs."""
