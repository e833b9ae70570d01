-- Back to what the Apache edition reads, after every chunk was decompressed and every job deleted.
drop schema ispvm cascade;
drop materialized view incident_kept;
drop procedure job_retention(integer, jsonb), job_compression(integer, jsonb), job_chunks(jsonb, text[], text[]);
drop function job_in_window(jsonb);
alter table event set (timescaledb.compress = false);
alter table rollup_1d set (timescaledb.compress = false);
alter table event enable row level security, force row level security;
alter table rollup_1d enable row level security, force row level security;
select grant_columns('event', 'select', 'insert');
select grant_columns('rollup_1d', 'select');
grant select on rollup_1h, incident_count to ispvm;
