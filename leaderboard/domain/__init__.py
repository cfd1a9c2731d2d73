"""What a leaderboard is about: contests, teams and tokens, submissions, standings."""
