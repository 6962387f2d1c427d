"""What `calculate_statistics` is made of: the description of one sample, and of the columns of records."""
