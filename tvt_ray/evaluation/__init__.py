"""Does the score predict accuracy? Tables of trained accuracies, made and read."""
