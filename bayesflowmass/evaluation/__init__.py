"""From a catalogue to posteriors, and what they are worth: predictions, test sets, metrics."""
