"""Rules of plans, without any solver: floors, demands, links, costs, accuracy and the check."""
