"""Exact method for up to sixteen classes: logic-based Benders decomposition."""
