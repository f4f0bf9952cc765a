"""Trust: keys, and the signed metadata by which devices know what they may install."""
