"""Workers under an even load for hours."""
