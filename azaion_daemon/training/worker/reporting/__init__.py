"""How report.html is made: what it is made of, its charts, its sample predictions, its page. Only the samples need the library."""
