"""VideoMAE's vision transformer."""
