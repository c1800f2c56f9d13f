"""Recorded speech of packages, and synthetic voices."""
