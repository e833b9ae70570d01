"""Server-rendered pages and who may see them."""
