"""Pages to read: rendered text, charts, prompts as images, and the questions about them."""
