"""What a run knows of itself: an estimate of its error, signs of failure and the reaction to them, scores."""
