"""Scenes composed of stamps: things that move, turn, hide one another, and the questions about them."""
