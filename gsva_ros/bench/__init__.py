"""`gsva bench`: where a frame's time goes, what it costs at least, and how the plain path compares."""
