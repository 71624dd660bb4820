"""What a run measures of itself: its estimated error, signatures of failure, adaptation of mu and points, scores."""
