"""What `find_patterns` is made of: a way of finding for each kind of data."""
