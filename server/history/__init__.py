"""What happened: append-only events, written with the change they tell of."""
