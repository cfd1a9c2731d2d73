"""The commands of the leaderboard: for everybody (`user`) and for the organiser (`admin`)."""
