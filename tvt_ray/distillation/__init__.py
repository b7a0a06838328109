"""Training students with a teacher: recipe, losses, one student or several side by side. Plain torch."""
