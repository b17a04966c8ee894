"""From events to the annotation tree: rules, group commit, placement."""
