"""What `headrace demo` does: a cluster of its own, real tasks of every built-in type, and where their time went."""
