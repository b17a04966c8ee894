"""A training job from the moment that it is due to the model that becomes the current one, past stops, kills and operators."""
