-- What the server may know of the machine room. The owner is a member of pg_monitor; the server gets these few answers, none
-- of which shows a tenant's data.

-- Bodies are text where they read what an extension's upgrade or a later migration may replace.
create function upkeep_database()
    returns table (data_directory text, wal_bytes bigint, max_wal_bytes bigint, database_bytes bigint,
                   last_upkeep timestamptz, waiting_hours bigint, overdue_hours bigint, oldest_due timestamptz)
    language plpgsql stable security definer set search_path = pg_catalog, public, pg_temp as $$
begin
    return query
    select current_setting('data_directory'), (select coalesce(sum(w.size), 0)::bigint from pg_ls_waldir() w),
           pg_size_bytes(current_setting('max_wal_size')), pg_database_size(current_database()),
           (select max(u.ended_at) from public.upkeep_run u),
           count(*), count(*) filter (where d.due <= now()), min(d.due) filter (where d.due <= now())
    from public.rollup_dirty d;
end $$;

-- Who has not sent for how long, over all tenants: three words each, for /metrics.
create function upkeep_agents()
    returns table (tenant text, agent text, heartbeat_age_s float8, batch_age_s float8, buffer_depth integer,
                   dropped_batches integer)
    language sql stable security definer set search_path = pg_catalog, public, pg_temp
begin atomic
    select t.key, a.name, extract(epoch from now() - a.last_heartbeat)::float8,
           extract(epoch from now() - a.last_batch)::float8, a.buffer_depth, a.dropped_batches
    from public.agent a join public.tenant t on t.id = a.tenant_id where a.revoked_at is null
    order by t.key, a.name limit 10000;
end;

-- The product's own statements of this database, slowest in sum first. Constants are already gone from their text; only
-- statements that read or write data are shown, since others (such as one that sets a password) keep their constants.
create function upkeep_statements(wanted integer)
    returns table (role text, calls bigint, mean_ms float8, max_ms float8, total_ms float8, statement text)
    language plpgsql stable security definer set search_path = pg_catalog, public, pg_temp as $$
begin
    if to_regclass('public.pg_stat_statements') is null then return; end if;
    return query
        select r.rolname::text, s.calls, s.mean_exec_time, s.max_exec_time, s.total_exec_time, left(s.query, 2000)
        from public.pg_stat_statements s join pg_roles r on r.oid = s.userid
        where s.dbid = (select oid from pg_database where datname = current_database())
          and r.rolname in ('ispvm', 'ispvm_worker', 'ispvm_owner')
          and s.query ~* '^\s*(with|select|insert|update|delete|copy)\M'
        order by s.total_exec_time desc limit least(wanted, 100);
exception when object_not_in_prerequisite_state then
    return;  -- the library is not loaded
end $$;

-- Chunks of every hypertable with their sizes.
create function upkeep_chunks()
    returns table (hypertable text, range_start timestamptz, range_end timestamptz, bytes bigint)
    language plpgsql stable security definer set search_path = pg_catalog, public, pg_temp as $$
begin
    return query
    select c.hypertable_name::text, c.range_start, c.range_end,
           pg_total_relation_size(format('%I.%I', c.chunk_schema, c.chunk_name)::regclass)
    from timescaledb_information.chunks c order by 1, 2 limit 100000;
end $$;

-- Tables (chunks, too) by how many dead rows they hold, and how far that is beyond what makes autovacuum come.
create function upkeep_tables(wanted integer)
    returns table (name text, live bigint, dead bigint, trigger_at bigint, last_vacuum timestamptz, bytes bigint)
    language plpgsql stable security definer set search_path = pg_catalog, public, pg_temp as $$
begin
    return query
    select s.relname::text, s.n_live_tup, s.n_dead_tup,
           (current_setting('autovacuum_vacuum_threshold')::float8
            + current_setting('autovacuum_vacuum_scale_factor')::float8 * s.n_live_tup)::bigint,
           greatest(s.last_vacuum, s.last_autovacuum), pg_total_relation_size(s.relid)
    from pg_stat_user_tables s order by s.n_dead_tup desc, 1 limit least(wanted, 100);
end $$;

revoke execute on function upkeep_database(), upkeep_agents(), upkeep_statements(integer), upkeep_chunks(),
    upkeep_tables(integer) from public;
grant execute on function upkeep_database(), upkeep_agents(), upkeep_statements(integer), upkeep_chunks(),
    upkeep_tables(integer) to ispvm;
