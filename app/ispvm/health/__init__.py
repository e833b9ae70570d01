"""The one state every router has, with its evidence."""
