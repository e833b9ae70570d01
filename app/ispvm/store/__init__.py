"""PostgreSQL: migrations, tenant transactions, the registry's columns, rollups and upkeep."""
