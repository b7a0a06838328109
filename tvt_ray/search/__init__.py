"""Scoring, choosing what to score next, storing rows, and the search on Ray Tune."""
