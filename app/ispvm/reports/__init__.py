"""What goes out of the house: billing reports."""
