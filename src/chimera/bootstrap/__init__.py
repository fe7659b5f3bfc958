"""Settings become objects and objects become loops; the only place that picks adapters and reads the environment."""
