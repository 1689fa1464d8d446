"""Chaos: real Kafka, several workers, faults by the dice, and an oracle at the end."""
