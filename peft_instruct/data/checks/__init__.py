"""What can be wrong with rows: a catalogue of kinds, one pass that finds them, and a cleaned copy."""
