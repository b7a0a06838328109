"""What people would rather look at: a run as a page, and its figures."""
