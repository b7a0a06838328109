"""The verbs: each stage reads the run, appends to it, and can be stopped and gone on with at any moment."""
