"""What runs in the worker process. Only here are torch and ultralytics imported."""
