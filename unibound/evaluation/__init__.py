"""How good a trained model is, and how far that can be relied on."""
