"""From an architecture to readings, from readings to scores, from scores to an order of rows."""
