"""The commands of the leaderboard: for everybody (`user`, `ranking`) and for organisers (`admin`)."""
