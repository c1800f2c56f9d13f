"""Pictures of things with their names, stamps and emoji, and how they are pasted on grounds."""
