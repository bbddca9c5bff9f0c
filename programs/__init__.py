"""What the utility offers, which devices take part in it, and what it says to them."""
