"""What a search does next: plan, budget, knowledge, gain, proposals, ranking, finalists."""
