"""Prompts and answers that packages hold."""
