"""How good and how fast the planner's solver is, beside direct models and yardsticks.

python -m benchmarks.solve --help
"""
