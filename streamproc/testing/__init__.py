"""Shipped doubles: manual clock, scripted source, faulty store, simulated disk."""
