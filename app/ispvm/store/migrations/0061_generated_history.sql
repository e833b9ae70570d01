-- Which part of a tenant's history nobody measured: a seed made it, so that charts have something to show.
alter table tenant add column generated tstzrange check (generated is null or seeded);
