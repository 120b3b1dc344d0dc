"""The household world: many kinds of things, in rooms, on and in each other."""
