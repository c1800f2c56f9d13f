"""Recipes: instruction data built step by step over sources, on this machine or a cluster (paper, section 3)."""
