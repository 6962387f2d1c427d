"""What happens to an order at a mill: it is billed, labelled and weighed."""
