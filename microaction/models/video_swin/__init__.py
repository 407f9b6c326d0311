"""Video Swin Transformer."""
