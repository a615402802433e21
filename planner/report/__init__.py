"""Reports of plans, profiles and what-ifs: tables for the terminal, pandas frames, plots, and an HTML page."""
