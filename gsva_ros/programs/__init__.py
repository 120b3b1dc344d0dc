"""Programs on top of all layers: the node's clients, pages, and commands that need several layers."""
