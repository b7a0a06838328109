"""What a recipe trains, for how long, and how long that takes here: facts, measurements and arithmetic."""
