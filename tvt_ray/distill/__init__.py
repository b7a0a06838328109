"""Training: teachers, and students with a teacher; plain torch, and on Ray Train."""
