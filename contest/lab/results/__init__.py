"""What an experiment leaves behind: resumable cells, tables, figures and the report."""
