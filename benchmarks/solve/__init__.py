"""Quality and speed of the planner's solver, compared with direct models and baselines.

python -m benchmarks.solve --help
"""
