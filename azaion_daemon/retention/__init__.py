"""How long datasets and job directories are kept."""
