"""All that runs on Ray, and nothing outside imports it: Tune searches, Train jobs, tasks, metrics."""
