"""The catalogue's entries, a module an area: what an event means, which fields it has, and what an operator does about it."""
