"""Training: recipes, objectives, and the trainer."""
