"""Labels for those who use them: read in Python, written for other programs, shown on pages. Nothing here knows Ray."""
