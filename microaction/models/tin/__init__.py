"""TIN, the temporal interlacing network."""
