"""Where images come from, which are forgotten, and how they stand on the device."""
