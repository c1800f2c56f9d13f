"""Pictures: stamps and emoji with their names, and how an image is read."""
