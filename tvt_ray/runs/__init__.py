"""The run: its config, its folder, and the object that one reads it through."""
