"""The machinery of decoding: containers, bitstreams, and one backend per decoder library."""
