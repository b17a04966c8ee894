"""Metrics for Prometheus: what there is (`catalogue`), its values from the status (`exposing`), and who hands it out (`server`)."""
