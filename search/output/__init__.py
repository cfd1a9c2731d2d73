"""What a search shows: progress, figures, the report and the slides."""
