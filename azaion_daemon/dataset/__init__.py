"""From the annotation tree to a snapshot that can be named, repeated and trusted."""
