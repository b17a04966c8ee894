"""From RabbitMQ's bytes to typed events."""
