"""Exact method for up to a dozen classes: logic-based Benders decomposition."""
