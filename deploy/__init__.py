"""How Headrace is run in containers, and the tools for that."""
