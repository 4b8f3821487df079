"""Watching a node: its figures for Prometheus, its signs of life for systemd."""
