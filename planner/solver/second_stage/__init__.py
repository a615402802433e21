"""Second stage of a solve: staying near an earlier plan, and using the slack."""
