"""How fast, and in how much memory: a stopwatch, memory probes, isolated runs, and result files side by side."""
