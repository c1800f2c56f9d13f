"""Instructions: prompts and answers, where they come from, and faults planted among them."""
