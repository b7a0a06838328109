"""How long a student takes on a device: parts are timed once, and every architecture is predicted by its parts."""
