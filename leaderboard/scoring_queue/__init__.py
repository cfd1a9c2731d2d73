"""Submissions that wait for their score, and the workers that score them."""
