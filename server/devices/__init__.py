"""The device plane: the only HTTP that an agent knows; and devices as operators see them."""
