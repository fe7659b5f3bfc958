"""The node agent over HTTP on a Unix socket: endpoints, wake, stats, logs."""
