"""What a search does next: proposals, ranking, budget, refinement, finalists."""
