-- Community edition, once: what is kept for long is compressed.
--
-- TimescaleDB compresses no table with row-level security, and counts none continuously. So these tables lose it, and the
-- server loses every right on them: it reaches them through the views of face.sql only, which show one tenant. The
-- policies stay where they are, without effect, for the way back.
alter table event no force row level security, disable row level security;
alter table rollup_1d no force row level security, disable row level security;
revoke all on event, rollup_1d, rollup_1h, incident_count from ispvm;

-- Samples are packed already: compressing them as well would win a fifth and make charts slower
-- (docs/decisions/0037-what-the-community-edition-compresses.md).
alter table event set (timescaledb.compress, timescaledb.compress_segmentby = 'tenant_id',
    timescaledb.compress_orderby = 'ts, id');
alter table rollup_1d set (timescaledb.compress, timescaledb.compress_segmentby = 'tenant_id, metric_id',
    timescaledb.compress_orderby = 'entity_id, day');
