-- Community edition, whenever this file or what it stands on changes: what the server sees, what is counted continuously,
-- and what the jobs do.
drop schema if exists ispvm cascade;
drop materialized view if exists incident_kept;

-- A schema of the server's own name comes first in its search path: there these names are views of one tenant, which
-- cannot be seen through (security_barrier) nor written past (check option). Owner and worker, who see all tenants, find
-- the tables themselves.
create schema ispvm;
grant usage on schema ispvm to ispvm;
create view ispvm.event with (security_barrier) as
    select * from public.event where tenant_id = (select current_tenant()) with check option;
create view ispvm.rollup_1d with (security_barrier) as
    select * from public.rollup_1d where tenant_id = (select current_tenant());

-- The same statements as in the Apache edition, on the names of the schema they are run in.
do $$
declare
    hours text := pg_get_viewdef('public.rollup_1h'::regclass);
    counts text := rtrim(pg_get_viewdef('public.incident_count'::regclass), ';');
begin
    execute 'create materialized view public.incident_kept'
        ' with (timescaledb.continuous, timescaledb.materialized_only = false) as ' || counts || ' with no data';
    perform set_config('search_path', 'ispvm, public', true);
    execute 'create view ispvm.rollup_1h with (security_barrier) as ' || hours;
    perform set_config('search_path', '"$user", public', true);
end $$;
create view ispvm.incident_count with (security_barrier) as
    select * from public.incident_kept where tenant_id = (select current_tenant());

grant select, insert on ispvm.event to ispvm;
grant select on ispvm.rollup_1d, ispvm.rollup_1h, ispvm.incident_count to ispvm;

-- The jobs. TimescaleDB starts one that it missed as soon as it can, whatever the hour, and its own policies wait for a
-- reader while everybody else waits behind them. These do neither: outside the window they fail, which is how a missed
-- window is seen and tried again, and a chunk that is in use is left for the next night.
create or replace function job_in_window(config jsonb) returns boolean language sql volatile as $$
    select case when begin <= until then moment >= begin and moment < until else moment >= begin or moment < until end
    from (select (clock_timestamp() at time zone (config ->> 'zone'))::time as moment,
                 split_part(config ->> 'window', '-', 1)::time as begin,
                 split_part(config ->> 'window', '-', 2)::time as until) as w;
$$;

-- One statement for each chunk, as long as the window is open.
create or replace procedure job_chunks(config jsonb, chunks text[], statements text[]) language plpgsql as $$
begin
    if not job_in_window(config) then
        raise exception 'outside the maintenance window %', config ->> 'window';
    end if;
    for at in 1 .. coalesce(cardinality(chunks), 0) loop
        exit when not job_in_window(config);
        perform set_config('lock_timeout', config ->> 'lock_timeout', true);
        begin
            execute statements[at];
        exception when lock_not_available then
            raise warning 'chunk % is in use; it is done next time', chunks[at];
        end;
        commit;
    end loop;
end $$;

create or replace procedure job_retention(job_id integer, config jsonb) language plpgsql as $$
declare
    chunks text[];
    statements text[];
begin
    select array_agg(c.chunk_name order by c.range_end),
           array_agg(format('select drop_chunks(%L, older_than => %L::%s, newer_than => %L::%3$s)',
                            c.hypertable_name, c.range_end, d.column_type, c.range_start) order by c.range_end)
    into chunks, statements
    from timescaledb_information.chunks c
    join timescaledb_information.dimensions d on d.hypertable_name = c.hypertable_name and d.dimension_number = 1
    join jsonb_each_text(config -> 'days') as kept(name, days) on kept.name = c.hypertable_name
    where c.range_end < now() - make_interval(days => kept.days::integer);
    call job_chunks(config, chunks, statements);
end $$;

create or replace procedure job_compression(job_id integer, config jsonb) language plpgsql as $$
declare
    chunks text[];
    statements text[];
begin
    select array_agg(c.chunk_name order by c.range_end),
           array_agg(format('select compress_chunk(%L)', format('%I.%I', c.chunk_schema, c.chunk_name))
                     order by c.range_end)
    into chunks, statements
    from timescaledb_information.chunks c
    join _timescaledb_catalog.chunk k on k.schema_name = c.chunk_schema and k.table_name = c.chunk_name
    where c.hypertable_name in (select jsonb_array_elements_text(config -> 'tables'))
      and c.range_end < now() - make_interval(days => (config ->> 'after_days')::integer)
      -- not compressed, or (unordered, partial) written into since then
      and (not c.is_compressed or k.status & (2 | 8) <> 0);
    call job_chunks(config, chunks, statements);
end $$;
