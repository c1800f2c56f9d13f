"""Scenes composed of stamps and emoji: things that move, turn, hide one another, and the questions about them."""
