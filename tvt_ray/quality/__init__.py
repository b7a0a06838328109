"""How good a classifier is: its probabilities for images, and what they are worth beside the labels."""
