"""The accuracy-against-score plot and the charts of the pages."""
