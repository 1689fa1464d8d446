"""Files as a source: envelopes of any topic, and streams merged by event time."""
