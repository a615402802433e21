"""The optimisation problem: instance, options, columns, placements and objectives."""
