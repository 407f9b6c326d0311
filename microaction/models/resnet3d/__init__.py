"""I3D and SlowFast: residual networks of 3D convolutions."""
