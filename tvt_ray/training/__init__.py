"""What training a teacher and training a student share: batches, precision, which weights are kept. Plain torch."""
