"""The leaderboard: database, submissions, ranking, charts, pages."""
