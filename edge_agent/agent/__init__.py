"""The agent itself: `flow` is the life of one update, `loop` polls and drives all of them."""
