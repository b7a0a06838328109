"""What one does with a run: a verb a file, each a function of a session."""
