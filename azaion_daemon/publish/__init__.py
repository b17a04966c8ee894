"""From a model to a release that consumers can load."""
