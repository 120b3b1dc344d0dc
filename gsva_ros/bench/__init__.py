"""`gsva bench`: where a frame's time goes, its minimum cost, and how the plain path compares."""
