"""What trains a candidate of a study, and what it costs before and after."""
