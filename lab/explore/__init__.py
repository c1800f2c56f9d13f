"""Explore: views to work with in JupyterLab, of what the other rooms make (controls on top, what they show beneath)."""
