"""Does a score predict accuracy? Tables of trained accuracies, read and compared with scores: tvt rank."""
